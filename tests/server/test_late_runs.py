"""Runs that fell due while the host was away, by late.policy and without a stampede, against real servers."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.kits.daemon import Host, eventually, serving
from tests.kits.prefect_servers import PrefectServer

LATE = 100
RATE, RUNS = 2, 3

# Which runs are claimed and when is what matters here, so their "interpreter" ends without having run any flow code.
INTERPRETER = """#!/bin/sh
case "$*" in *prefect.engine) exec sleep 0.2;; esac
exec {python} "$@"
"""
SCHEDULES = "[{interval: 3600, anchor_date: '2024-01-01T00:00:00+00:00'}]"


@pytest.fixture(scope="module", params=["prefect2", "prefect3"])
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    server: PrefectServer = request.getfixturevalue(request.param)
    interpreter = tmp_path_factory.mktemp("interpreter") / "python"
    interpreter.write_text(INTERPRETER.format(python=server.python))
    interpreter.chmod(0o755)
    host = Host(url=server.url, python=str(interpreter))
    names = ("late-skip", "late-latest", "late-many")
    lines = [f"  - {{name: {name}, entrypoint: 'flows.py:greet', schedules: {SCHEDULES}}}" for name in names]
    try:
        with serving(host, "\n".join(["deployments:", *lines]), *names) as host:
            yield host
    finally:
        for name in names:
            host.api.call("DELETE", f"/deployments/{host.api.deployment('greet', name)['id']}")


def ago(hours: float) -> str:
    return (datetime.now(UTC) - timedelta(hours=hours)).isoformat()


def missed(host: Host, deployment: str) -> list[str]:
    """Have the server make the runs its schedule asked for in the last hours; their ids, the oldest first."""
    deployment_id = host.api.deployment("greet", deployment)["id"]
    body = {"start_time": ago(5.5), "end_time": ago(0.5), "min_runs": 50, "max_runs": 50}
    host.api.call("POST", f"/deployments/{deployment_id}/schedule", body)
    made = [run for run in host.api.runs_of(deployment_id, "SCHEDULED") if run["expected_start_time"] < ago(0)]
    assert len(made) == 5
    assert all(run["auto_scheduled"] for run in made)
    return [run["id"] for run in sorted(made, key=lambda run: str(run["expected_start_time"]))]


def asked_for(host: Host, deployment: str, at: str, count: int = 1) -> list[str]:
    """Runs that somebody asked for."""
    path = f"/deployments/{host.api.deployment('greet', deployment)['id']}/create_flow_run"
    body = {"state": {"type": "SCHEDULED", "state_details": {"scheduled_time": at}}}
    return [host.api.call("POST", path, body)["id"] for _ in range(count)]


def leave(host: Host) -> None:
    host.signal(signal.SIGTERM)
    assert host.wait() == 0
    host.log.write_bytes(b"")


def claimed(host: Host, run_id: str) -> bool:
    return "PENDING" in host.api.history(run_id)


def come_back(host: Host, settings: str) -> None:
    (host.drop_ins / "50-late.yaml").write_text(settings)
    host.start()


@pytest.mark.parametrize(("policy", "kept"), [("skip", 0), ("latest", 1)])
def test_what_fell_due_meanwhile(host: Host, policy: str, kept: int) -> None:
    leave(host)
    late = missed(host, f"late-{policy}")
    wanted = asked_for(host, f"late-{policy}", ago(3)) + asked_for(host, f"late-{policy}", ago(0))
    come_back(host, f"late: {{after: 10m, policy: {policy}}}")
    gone = late[: len(late) - kept]
    wanted += late[len(late) - kept :]
    eventually(lambda: all(claimed(host, run_id) for run_id in wanted), "what was asked for, or is the latest")
    eventually(lambda: all(host.api.state(run_id) == "CANCELLED" for run_id in gone), "the others to be let go")
    assert not any(claimed(host, run_id) for run_id in gone)
    message = host.api.run(gone[0])["state"]["message"]
    assert message.startswith("skipped: it fell due at ")
    assert message.endswith(f"late.policy is {policy}")
    eventually(lambda: host.said().count("late run skipped") == len(gone), "the log to say so, once of each")


def test_a_hundred_late_runs_are_no_stampede(host: Host) -> None:
    leave(host)
    late = missed(host, "late-many") + asked_for(host, "late-many", ago(2), LATE - 5)
    come_back(host, f"{{late: {{after: 10m, policy: run}}, limits: {{start_rate: {RATE}/s, runs: {RUNS}}}}}")
    started = eventually(lambda: enough(host), "some of them to have run")
    assert {run["id"] for run in started} <= set(late)
    assert late[0] in {run["id"] for run in started}, "the longest overdue come first"
    begins = sorted(datetime.fromisoformat(run["created_at"]) for run in started)
    saved_up = RATE  # tokens
    for number, begin in enumerate(begins[saved_up:]):
        # Never more than the bucket holds and what it gains meanwhile; a hundredth for the clocks' granularity.
        assert (begin - begins[number]).total_seconds() > (1 / RATE) * 0.98 - 0.01, begins
    for begin in begins:
        assert sum(overlaps(run, begin) for run in started) <= RUNS


def enough(host: Host) -> list[Any]:
    runs = [run for run in host.json("runs", "--all") if run["deployment"] == "late-many"]
    return runs if len(runs) > 2 * (RATE + RUNS) else []  # the bucket is empty and the slots have changed hands


def overlaps(run: Any, at: datetime) -> bool:
    begin, end = (datetime.fromisoformat(run[key]) if run[key] else None for key in ("created_at", "ended_at"))
    return begin is not None and begin <= at and (end is None or at < end)
