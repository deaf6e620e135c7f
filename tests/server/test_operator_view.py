"""What an operator sees of runs that wait, of those that nothing takes up, and of a run's attempts."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.kits.daemon import Host, eventually
from tests.kits.prefect_servers import PrefectServer

DEPLOYMENTS = """
deployments:
  - {name: operated-greet, entrypoint: "flows.py:greet"}
  - {name: operated-parent, entrypoint: "flows.py:parent", parameters: {child: greet/operated-greet}}
"""


@pytest.fixture
def host(prefect: PrefectServer) -> Iterator[Host]:
    host = Host(url=prefect.url, python=prefect.python)
    host.write_main((host.config / "runnerd.yaml").read_text() + "limits: {runs: 1}\n")
    host.drop_in("10-test.yaml", DEPLOYMENTS)
    try:
        host.start()
        host.registered("operated-greet", "operated-parent")
        yield host
    finally:
        host.close()


def schedule_again(host: Host, run_id: str) -> None:
    """What the button Retry of Prefect's UI does with an ended run."""
    details = {"scheduled_time": datetime.now(UTC).isoformat()}
    state = {"type": "SCHEDULED", "name": "AwaitingRetry", "state_details": details}
    host.api.call("POST", f"/flow_runs/{run_id}/set_state", {"state": state, "force": True})


def waiting(host: Host, run_id: str) -> Any:
    return next((its for its in host.json("status")["waiting"] if its["id"] == run_id), None)


def test_a_parent_that_holds_the_slot_its_child_waits_for_and_the_attempts_of_a_run(host: Host) -> None:
    retried = host.run_now("operated-greet", name="first")
    assert host.ended(retried)["api_state"] == "COMPLETED"

    parent = host.run_now("operated-parent")
    host.running(parent)
    deployment = host.api.deployment("greet", "operated-greet")["id"]

    def child() -> Any:
        runs = [run for run in host.api.runs_of(deployment, "SCHEDULED") if run["id"] != retried]
        its = waiting(host, runs[0]["id"]) if runs else None
        return its if its and its["parent"] else None

    its = eventually(child, "the child to wait", log=host.said)
    assert its["parent"] == parent
    assert its["waiting"].startswith("limits.runs 1 is reached: its parent run ")
    assert its["waiting"].endswith(f"({parent}) holds the only slot, and may wait for this run")
    assert its["waiting"] in host.ctl("status").stdout

    schedule_again(host, retried)
    eventually(lambda: waiting(host, retried), "the retry to wait")
    assert host.ctl("cancel", retried).returncode == 0
    logs = host.ctl("logs", retried)
    assert "hello first" in logs.stdout, "the output of the attempt before, although the next one never started"
    assert "this is the output of attempt 1: attempt 2 has not started" in logs.stderr
    schedule_again(host, retried)
    host.ctl("cancel", parent)
    eventually(lambda: host.document(retried).get("attempt") == 3, "the third attempt")
    assert host.ended(retried)["api_state"] == "COMPLETED"
    assert [its["attempt"] for its in host.json("logs", retried)["attempts"]] == [1, 3]
    assert "hello first" in host.ctl("logs", retried, "--attempt", "1").stdout
    missing = host.ctl("logs", retried, "--attempt", "2")
    assert (missing.returncode, missing.stdout) == (4, "")
    assert "there is output of attempt 1 and 3" in missing.stderr


def test_runs_that_only_prefect_has(host: Host) -> None:
    pool, name = f"held-{uuid.uuid4().hex[:8]}", f"far-{uuid.uuid4().hex[:8]}"
    own = host.api.deployment("greet", "operated-greet")
    host.api.call("POST", "/work_pools/", {"name": pool, "type": "process", "is_paused": True})
    body = {"name": name, "flow_id": own["flow_id"], "entrypoint": "flows.py:greet", "path": "/nonexistent"}
    far = host.api.call("POST", "/deployments/", {**body, "work_pool_name": pool})["id"]
    state = {
        "type": "SCHEDULED",
        "state_details": {"scheduled_time": (datetime.now(UTC) + timedelta(days=1)).isoformat()},
    }
    ahead = host.api.call("POST", f"/deployments/{own['id']}/create_flow_run", {"state": state})["id"]
    held = host.api.call("POST", f"/deployments/{far}/create_flow_run", {})["id"]

    its = host.json("status", held)
    assert (its["here"], its["pool"], its["deployment"], its["flow"]) == (False, pool, name, "greet")
    assert its["waiting"] == f"work pool {pool} is paused; work pool {pool} is not served here"
    logs, cancel = host.ctl("logs", held), host.ctl("cancel", held)
    assert (logs.returncode, "has not run on this host" in logs.stderr) == (4, True)
    assert (cancel.returncode, f"prefect flow-run cancel {held} cancels it" in cancel.stderr) == (1, True)
    assert host.api.run(held)["state_type"] == "SCHEDULED"

    its = host.json("status", ahead)
    assert (its["here"], its["deployment"], its["waiting"].startswith("it is due at 20")) == (
        False,
        "operated-greet",
        True,
    )
    assert its["run_created_at"] is not None
    host.ctl("cancel", ahead)  # one that a slow server does not answer in time is cancelled later
    eventually(lambda: host.api.run(ahead)["state_type"] == "CANCELLED", "the cancel", log=host.said)
    eventually(lambda: host.json("status", ahead)["phase"] == "done", "the end of the run", log=host.said)


def test_a_run_that_is_paused_without_a_process_is_named(host: Host) -> None:
    deployment = host.api.deployment("greet", "operated-greet")["id"]
    ahead = {
        "type": "SCHEDULED",
        "state_details": {"scheduled_time": (datetime.now(UTC) + timedelta(days=1)).isoformat()},
    }
    run_id = host.api.call("POST", f"/deployments/{deployment}/create_flow_run", {"state": ahead})["id"]
    details = {
        "pause_timeout": (datetime.now(UTC) - timedelta(minutes=10)).isoformat(),
        "pause_reschedule": False,
    }
    for state in (
        {"type": "PENDING"},
        {"type": "RUNNING"},
        {"type": "PAUSED", "name": "Paused", "state_details": details},
    ):
        host.api.call("POST", f"/flow_runs/{run_id}/set_state", {"state": state, "force": True})
    assert host.api.state(run_id) == "PAUSED"
    (check,) = [check for check in host.json("doctor")["checks"] if check["name"] == "runs"]
    assert (check["state"], run_id in check["detail"]) == ("warning", True)
    assert f"prefect flow-run delete {run_id}" in check["remedy"]
    assert any(run_id in problem["message"] for problem in host.json("status")["problems"])
    host.api.call("DELETE", f"/flow_runs/{run_id}")
    assert [check["state"] for check in host.json("doctor")["checks"] if check["name"] == "runs"] == ["ok"]
