"""runnerctl pool and queue through a real daemon to real servers, from the first command to the last."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from tests.kits.daemon import Host
from tests.kits.prefect_servers import PrefectServer


@pytest.fixture
def host(prefect: PrefectServer) -> Iterator[Host]:
    host = Host(url=prefect.url, python=prefect.python)
    try:
        host.start()
        yield host
    finally:
        host.close()


def a_run(host: Host, pool: str, queue: str, *, due: datetime) -> str:
    """A run of a deployment that somebody else registered."""
    flow_id = host.api.call("POST", "/flows/", {"name": f"of-{pool}"})["id"]
    about = {"name": "elsewhere", "flow_id": flow_id, "entrypoint": "flows.py:greet", "path": "/nonexistent"}
    at = {"work_pool_name": pool, "work_queue_name": queue}
    deployment_id = host.api.call("POST", "/deployments/", {**about, **at})["id"]
    state = {"type": "SCHEDULED", "state_details": {"scheduled_time": due.isoformat()}}
    made = host.api.call("POST", f"/deployments/{deployment_id}/create_flow_run", {"state": state})
    return str(made["id"])


def did(host: Host, *words: str) -> str:
    done = host.ctl(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def failed(done: subprocess.CompletedProcess[str], status: int) -> str:
    assert (done.returncode, done.stdout) == (status, "")
    return done.stderr


def test_pools_and_queues_from_first_to_last(host: Host) -> None:
    pool = f"pool {uuid.uuid4().hex[:8]}"
    made = host.json("pool", "create", pool, "--description", "mine", "--concurrency-limit", "5")
    assert (made["type"], made["concurrency_limit"], made["created"]) == ("process", 5, True)
    assert "--update" in failed(host.ctl("pool", "create", pool), 1)
    assert "knows " in failed(host.ctl("pool", "create", "x", "--type", "nix"), 4)
    template = json.loads(did(host, "pool", "get-default-base-job-template", "--type", "process"))
    assert host.json("pool", "inspect", pool)["base_job_template"] == template
    assert pool in did(host, "pool", "ls")

    _queues(host, pool)
    _preview(host, pool)

    assert did(host, "pool", "pause", pool)
    assert f"\n{pool} (**)  process" in did(host, "pool", "ls")
    found = host.json("pool", "preview", pool)
    assert (found["paused"], found["paused_deployments"], found["whole"]) == ([pool], [], True)
    assert [run["waiting"] for run in found["runs"]] == [f"pool {pool} is paused"]
    assert f"pool {pool} is paused" in did(host, "pool", "preview", pool)
    assert did(host, "pool", "clear-concurrency-limit", pool)
    its = host.json("pool", "update", pool, "--description", "ours")
    assert (its["paused"], its["concurrency_limit"], its["description"]) == (True, None, "ours")
    again = host.json("pool", "create", pool, "--update")
    assert (again["created"], again["paused"], again["description"]) == (False, False, None)
    assert "--yes" in failed(host.ctl("pool", "delete", pool), 2)
    assert did(host, "pool", "delete", pool, "--yes") == f"deleted work pool {pool}\n"
    assert failed(host.ctl("pool", "inspect", pool), 4)


def _queues(host: Host, pool: str) -> None:
    at = ("--pool", pool)
    made = host.json("queue", "create", "urgent", *at, "--priority", "1", "--concurrency-limit", "3")
    assert (made["pool"], made["priority"], made["concurrency_limit"]) == (pool, 1, 3)
    assert failed(host.ctl("queue", "create", "urgent", *at), 1)
    assert did(host, "queue", "pause", "urgent", *at)
    assert host.json("queue", "clear-concurrency-limit", "urgent", *at)["paused"] is True
    assert did(host, "queue", "set-priority", "urgent", "2", *at)
    assert did(host, "queue", "resume", "urgent", *at)
    told = {q["name"]: (q["priority"], q["paused"], q["default"]) for q in host.json("queue", "ls", *at)}
    assert told["urgent"] == (2, False, False)
    assert told["default"][2] is True
    assert did(host, "queue", "create", "spare", *at)
    assert did(host, "queue", "delete", "spare", *at, "--yes")
    assert "default queue" in failed(host.ctl("queue", "delete", "default", *at, "--yes"), 1)
    assert failed(host.ctl("queue", "inspect", "spare", *at), 4)
    assert {"urgent", "default"} <= {q["name"] for q in host.json("queue", "ls") if q["pool"] == pool}


def _preview(host: Host, pool: str) -> None:
    now = datetime.now(UTC)
    late = a_run(host, pool, "urgent", due=now - timedelta(minutes=5))
    later = a_run(host, pool, "urgent", due=now + timedelta(hours=3))
    told = [(r["id"], r["queue"], r["deployment"], r["late"]) for r in host.json("pool", "preview", pool)["runs"]]
    assert told == [(late, "urgent", "elsewhere", True)]
    ahead = host.json("queue", "preview", "urgent", "--pool", pool, "--hours", "4")["runs"]
    assert [run["id"] for run in ahead] == [late, later]
    assert did(host, "pool", "preview", pool).splitlines()[1].split()[1:3] == ["(**)", late]
    assert host.json("queue", "preview", "default", "--pool", pool)["runs"] == []
    assert host.json("queue", "inspect", "urgent", "--pool", pool)["last_polled_at"] is None, "a preview is no poll"
