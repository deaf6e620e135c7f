"""plan.py: the plan of a start, for people."""

from __future__ import annotations

import pytest

from runnerd.cli.console import Console
from runnerd.cli.verbs.plan import print_plan
from tests.kits.nouns import Json

PLAN: Json = {
    "kind": "deployment",
    "id": "d-1",
    "name": "nightly",
    "deployment": "nightly",
    "flow": "etl",
    "pool": None,
    "queue": None,
    "served": True,
    "user": "etl",
    "group": None,
    "command": ["/opt/a b/python", "-m", "prefect.engine"],
    "entrypoint": "/opt/etl/flow.py:etl",
    "directory": "/opt/etl",
    "scratch": False,
    "environment": [{"name": "HOME", "source": "account etl"}, {"name": "USER", "source": "account etl"}],
    "limits": {
        "runtime_max": 7200.0,
        "memory_max": 2**31,
        "nice": None,
        "stop_signal": 15,
        "rlimits": {"nofile": [10, 20]},
        "concurrency": [{"name": "limits.runs", "used": 1, "max": 10}],
    },
    "start": {"kind": "cold", "why": "run.start is cold"},
    "due_at": None,
    "next": ["2026-01-01T02:00:00Z"],
    "problem": None,
    "held_by": [],
}


def shown(capsys: pytest.CaptureFixture[str], **changes: Json) -> str:
    print_plan(Console(json=False, width=None, colour=False), {**PLAN, **changes})
    return capsys.readouterr().out


def test_what_would_be_started(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys)
    fields = dict(line.split(maxsplit=1) for line in out.splitlines() if ":  " in line or ": " in line)
    assert fields["Command:"] == "'/opt/a b/python' -m prefect.engine"
    assert (fields["Deployment:"], fields["Entrypoint:"]) == ("etl/nightly", "/opt/etl/flow.py:etl")
    assert (fields["User:"], fields["Directory:"], fields["Start:"]) == ("etl", "/opt/etl", "cold: run.start is cold")
    assert fields["Limits:"] == "runtime_max 2h, memory_max 2G, stop_signal 15, nofile 10:20"
    assert "limits.runs 1 of 10" in out
    assert "account etl: HOME USER" in out
    assert "Held up by" not in out


def test_what_holds_it_up_and_a_scratch_directory(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, held_by=["the \x1b[31mAPI is away"], scratch=True, directory="/tmp", served=False, next=[])
    assert "Held up by\n  the ?[31mAPI is away\n" in out
    assert "a new one below /tmp" in out
    assert "not this host; runnerctl execute would start it like this" in out
    assert "none scheduled" in out


def test_a_run_of_no_deployment_has_a_flow(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, deployment=None, entrypoint=None)
    assert "Flow:" in out and "Deployment:" not in out and "Entrypoint:" not in out


def test_why_it_could_not_be_started(capsys: pytest.CaptureFixture[str]) -> None:
    absent = dict.fromkeys(("user", "group", "command", "directory", "environment", "start"))
    out = shown(capsys, **absent, problem="no such user etl", limits={"concurrency": []})
    assert "no such user etl" in out
    assert "Command" not in out and "Variables" not in out
