"""Flows begin when they are due and never before, on real servers of both majors: own deployments and a pool's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.kits.daemon import ANSWER_S, Host, eventually, serving
from tests.kits.prefect_servers import PrefectServer
from tests.kits.served_pool import PoolHost, new_pool

Json = Any
FLOWS = """
import json, os, threading, time
from prefect import flow

def stamp(mark, what):
    with open(mark, "a") as file:
        file.write(json.dumps([what, time.time()]) + "\\n")

@flow
def plain(mark: str):
    stamp(mark, "flow")
    assert plain.fn.__name__ == "plain" and "RUNNERD_START_AT" not in os.environ

@flow
async def later(mark: str):
    stamp(mark, "flow")

def on_running(flow, flow_run, state):
    stamp(flow_run.parameters["mark"], "hook")

@flow(on_running=[on_running])
def hooked(mark: str):
    stamp(mark, "flow")

@flow
def failing(mark: str):
    stamp(mark, "flow")
    raise ValueError("on purpose")
"""
KINDS = ("plain", "later", "hooked", "failing")
# Fractions of a second at which a server that rounds would let a flow begin early, or late.
FRACTIONS = (0.0, 0.2, 0.45, 0.7)
HELD = "  - {name: held, entrypoint: 'on_time.py:plain'}"  # its first run is started as early as prefetch allows
AHEAD_S = 25.0  # longer than a start takes, even where several run at once


@pytest.fixture(scope="module", params=["prefect2", "prefect3"])
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    server: PrefectServer = request.getfixturevalue(request.param)
    host = Host(url=server.url, python=server.python)
    (host.config / "on_time.py").write_text(FLOWS)
    lines = [f"  - {{name: on-time, entrypoint: 'on_time.py:{kind}'}}" for kind in KINDS]
    with serving(host, "\n".join(["api: {prefetch: 600s}", "deployments:", *lines, HELD]), "on-time", "held") as host:
        yield host
        for kind in KINDS:
            host.api.call("DELETE", f"/deployments/{host.api.deployment(kind, 'on-time')['id']}")


def ask(host: Host, deployment_id: str, mark: Path, fraction: float) -> tuple[str, datetime]:
    """A run that is due in a while; its id and that time."""
    due = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=AHEAD_S + fraction)
    state = {"type": "SCHEDULED", "state_details": {"scheduled_time": due.isoformat()}}
    body = {"parameters": {"mark": str(mark)}, "state": state}
    return str(host.api.call("POST", f"/deployments/{deployment_id}/create_flow_run", body)["id"]), due


def of_2(host: Host) -> bool:
    return str(host.api.call("GET", "/admin/version")).startswith("2.")


def stamps(mark: Path) -> dict[str, float]:
    return dict(map(json.loads, mark.read_text().splitlines()))


@pytest.fixture(scope="module")
def asked(host: Host, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, datetime, Path]]:
    """Of each kind a run, when it is due, and its mark; all of them are started at once."""
    found = {}
    for kind, fraction in zip(KINDS, FRACTIONS, strict=True):
        mark = tmp_path_factory.mktemp("on-time") / "mark"
        known = eventually(lambda kind=kind: host.api.deployment(kind, "on-time"), f"{kind} to be registered")
        found[kind] = (*ask(host, known["id"], mark, fraction), mark)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_flow_begins_when_it_is_due_and_not_before(
    host: Host, asked: dict[str, tuple[str, datetime, Path]], kind: str
) -> None:
    run_id, due, mark = asked[kind]
    document = eventually(lambda: done(host, run_id), f"{run_id} to end", ANSWER_S, log=host.said)
    begun = stamps(mark)
    assert set(begun) == ({"flow", "hook"} if kind == "hooked" else {"flow"})
    assert min(begun.values()) >= due.timestamp()
    assert document["api_state"] == ("FAILED" if kind == "failing" else "COMPLETED")
    assert document["due_at"] is not None and document["ready_seconds"] > 0, "the process said when it was ready"
    warned = "RuntimeWarning" in host.ctl("logs", run_id).stdout
    assert not warned or of_2(host), "2.20 is warned about at each start of its engine"
    assert not list(host.root.glob(f"**/{run_id}*.ready")), "it is read and removed"


def done(host: Host, run_id: str) -> Json:
    if host.api.state(run_id) == "SCHEDULED":
        return None
    document = host.document(run_id)
    return document if document["phase"] == "done" else None


def test_a_run_that_is_held_can_be_cancelled(host: Host, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    run_id, _ = ask(host, host.api.deployment("plain", "held")["id"], mark, 500.0)
    eventually(lambda: "PENDING" in host.api.history(run_id), "the run to be claimed", log=host.said)
    eventually(lambda: host.document(run_id)["phase"] == "running", "its process to be started", log=host.said)
    host.api.cancel(run_id)
    eventually(lambda: host.api.state(run_id) == "CANCELLED", "the run to be cancelled", log=host.said)
    assert not mark.exists()


def test_a_pool_s_flow_begins_when_it_is_due_and_not_before(prefect: PrefectServer, tmp_path: Path) -> None:
    host, pool = PoolHost(prefect), new_pool()
    (host.config / "on_time.py").write_text(FLOWS)
    mark = tmp_path / "mark"
    host.drop_in("20-pool.yaml", f"pools: [{{name: {pool}, prefetch: 60s}}]\n")
    try:
        host.start()
        host.serves(pool)
        deployment_id = host.deploy(pool, "of-a-pool", entrypoint="on_time.py:plain")
        run_id, due = ask(host, deployment_id, mark, 0.2)
        host.ends(run_id, "COMPLETED", ANSWER_S)
        assert stamps(mark)["flow"] >= due.timestamp()
        document = eventually(lambda: done(host, run_id), f"{run_id} to end", log=host.said)
        assert document["ready_seconds"] > 0
    finally:
        host.close()
        host.api.call("DELETE", f"/work_pools/{pool}")
