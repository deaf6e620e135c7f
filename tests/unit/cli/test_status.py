"""status.py: the host at a glance, and one run in full."""

from __future__ import annotations

from pathlib import Path

import pytest

from runnerd.cli.console import Console
from runnerd.cli.verbs.status import print_host, print_run
from tests.kits.fakes.fake_documents import LATER, STAMP, a_run
from tests.kits.fakes.fake_host import FakeHost
from tests.kits.nouns import Json

RUN = "aaaa1111-0000-4000-8000-000000000001"


@pytest.fixture
def console() -> Console:
    return Console(json=False, width=None, colour=False)


def a_problem(message: str, **place: Json) -> Json:
    return {"message": message, "file": None, "line": None, "column": None, "deployment": None, **place}


def test_how_events_arrive_and_how_often_the_api_is_asked(
    tmp_path: Path, console: Console, capsys: pytest.CaptureFixture[str]
) -> None:
    status = FakeHost(outputs=tmp_path).status()
    print_host(console, status)
    out = capsys.readouterr().out
    assert "live since" in out and "7 in the last minute" in out
    older = {key: its for key, its in status["api"].items() if key not in ("requests_per_minute", "stream")}
    print_host(console, {**status, "api": older})
    out = capsys.readouterr().out
    assert "Events" not in out and "Requests" not in out, "of a runnerd that does not say"


def test_a_problem_is_printed_once(tmp_path: Path, console: Console, capsys: pytest.CaptureFixture[str]) -> None:
    host = FakeHost(outputs=tmp_path)
    host.deployments.put("d-1", "nightly", problem="the flow cannot be imported", state="unregistered")
    host.deployments.put("d-2", "hourly", problem="20.yaml:4:7: unknown key", state="invalid")
    host.deployments.put("d-3", "daily", problem="of which no problem is listed", state="invalid")
    host.problems = [
        a_problem("the flow cannot be imported", file="20.yaml", line=2, column=5),
        a_problem("unknown key", file="20.yaml", line=4, column=7),
        a_problem("work pool etl is of type docker"),
    ]
    pool = {"name": "etl", "type": "docker", "state": "invalid", "running": 0, "limit": None, "queues": []}
    more = {"pools": [{**pool, "problem": "work pool etl is of type docker", "worker": None}]}
    print_host(console, {**host.status(), **more})
    out = capsys.readouterr().out
    for its in (
        "the flow cannot be imported",
        "unknown key",
        "work pool etl is of type docker",
        "no problem is listed",
    ):
        assert out.count(its) == 1
    assert out.count("  see below\n") == 3


def test_what_a_run_waits_for_is_printed_once(
    tmp_path: Path, console: Console, capsys: pytest.CaptureFixture[str]
) -> None:
    host = FakeHost(outputs=tmp_path)
    host.runs.put(RUN, phase="starting", waiting="No space left on device")
    its = {"id": RUN, "name": "x", "deployment": "nightly", "flow": "etl", "pool": None, "queue": None}
    host.waiting = [{**its, "due_at": STAMP, "phase": "starting", "waiting": "No space left on device", "parent": None}]
    print_host(console, host.status())
    assert capsys.readouterr().out.count("No space left on device") == 1
    host.waiting = []
    print_host(console, host.status())
    assert capsys.readouterr().out.count(f"{RUN} waits for: No space left on device") == 1


def test_a_second_attempt(console: Console, capsys: pytest.CaptureFixture[str]) -> None:
    print_run(console, a_run(RUN, attempt=2, run_created_at=STAMP, created_at=LATER))
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert [words for words in lines if words[0] in ("Attempt:", "Created:", "Claimed:")] == [
        ["Attempt:", "2"],
        ["Created:", STAMP],
        ["Claimed:", LATER],
    ]


@pytest.mark.parametrize(("end_s", "took"), [(9.5, "1.5s"), (5.0, "0s")])
def test_the_wait_until_a_run_is_due_is_not_of_what_it_took(
    console: Console, capsys: pytest.CaptureFixture[str], end_s: float, took: str
) -> None:
    at = "2026-11-30T12:00:0{:.1f}Z".format
    print_run(console, a_run(RUN, started_at=at(0), due_at=at(8), ended_at=at(end_s), phase="done"))
    fields = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if " " in line)
    assert (fields["Due:"], fields["Took:"]) == (at(8), took)


@pytest.mark.parametrize("more", [{"attempt": 1}, {}])
def test_a_first_attempt_of_an_older_daemon(
    console: Console, capsys: pytest.CaptureFixture[str], more: dict[str, Json]
) -> None:
    print_run(console, a_run(RUN, created_at=LATER, **more))
    out = capsys.readouterr().out
    assert ("Attempt:" in out, "Created:" in out, f"Claimed:     {LATER}\n" in out) == (False, False, True)


def test_warm_interpreters(tmp_path: Path, console: Console, capsys: pytest.CaptureFixture[str]) -> None:
    ready = {"python": "/opt/etl/bin/python", "user": "etl", "preload": ["pandas", "os"], "state": "ready"}
    more = {"since": STAMP, "pid": 7, "memory_bytes": 2**26, "runs": 12, "problem": None}
    failed = {**ready, "state": "failed", "since": None, "pid": None, "memory_bytes": None, "runs": 0}
    print_host(console, {**FakeHost(outputs=tmp_path).status(), "warm": [{**ready, **more}, failed]})
    out = [line.split("  ") for line in capsys.readouterr().out.splitlines() if "/opt/etl" in line]
    rows = [[word.strip() for word in words if word.strip()] for words in out]
    assert rows == [
        ["/opt/etl/bin/python", "etl", "pandas, os", "ready", STAMP, "64M", "12"],
        ["/opt/etl/bin/python", "etl", "pandas, os", "failed", "-", "-", "0"],
    ]


def test_how_a_run_was_started(console: Console, capsys: pytest.CaptureFixture[str]) -> None:
    print_run(console, a_run(RUN, start="warm", start_problem=None))
    print_run(console, a_run(RUN, start="cold", start_problem="no memory\x1b[0m"))
    print_run(console, a_run(RUN))
    starts = [line.split(maxsplit=1)[1] for line in capsys.readouterr().out.splitlines() if line.startswith("Start:")]
    assert starts == ["warm", "cold: no memory?[0m", "cold"]
