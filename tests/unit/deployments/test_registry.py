"""registry.py and control/backend/documents.py: the table of deployments, and the JSON documents."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from runnerd.control.backend.documents import (
    api_document,
    deployment_document,
    limits_document,
    offered_document,
    run_document,
)
from runnerd.core.exit_words import time_text
from runnerd.core.limits import Caps, Group
from runnerd.core.machine import Intent, Phase
from runnerd.core.place import Place, Problem, problem_document
from runnerd.core.prefect import ApiCondition, ApiHealth, ApiState, FlowRun, StateType
from runnerd.core.process import Exit, Identity
from runnerd.core.settings import LimitSettings, key_of
from runnerd.deployments.registry import Entry, EntryState, Registry
from runnerd.system.usage import Usage
from tests.kits.nouns import NOON, a_deployment, a_record


def entry(name: str = "nightly", **changes: object) -> Entry:
    given: dict[str, object] = {"flow": "etl", "deployment_id": f"id-{name}", **changes}
    return Entry(deployment=a_deployment(name), **given)  # type: ignore[arg-type]


def registry(*entries: Entry) -> Registry:
    made = Registry()
    for one in entries:
        made.put(one)
    return made


# --- the table --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, EntryState.READY),
        ({"paused": True}, EntryState.PAUSED),
        ({"deployment_id": None}, EntryState.UNREGISTERED),
        ({"deployment_id": None, "paused": True}, EntryState.UNREGISTERED),
        ({"invalid": True}, EntryState.INVALID),
        ({"invalid": True, "deployment_id": None}, EntryState.INVALID),
    ],
)
def test_states(changes: dict[str, object], state: EntryState) -> None:
    assert entry(**changes).state is state


def test_an_entry_is_offered_runs_exactly_while_it_has_an_id() -> None:
    table = registry(entry("a"), entry("b", deployment_id=None))
    assert table.ids() == ["id-a"]
    assert table.by_id("id-a") == entry("a")
    table.put(entry("a", deployment_id=None))
    assert table.ids() == []
    assert table.by_id("id-a") is None
    table.put(entry("b", deployment_id="new"))
    assert table.ids() == ["new"]


def test_nobody_has_no_id() -> None:
    table = registry(entry("a", deployment_id=None))
    assert table.by_id(None) is None
    assert table.by_id("") is None
    assert table.get(("x", "y")) is None


def test_another_id_replaces_the_old_one() -> None:
    table = registry(entry("a"))
    table.put(entry("a", deployment_id="second"))
    assert (table.ids(), table.by_id("id-a")) == (["second"], None)


def test_removing() -> None:
    table = registry(entry("a"), entry("b"))
    table.remove(key_of(a_deployment("a")))
    table.remove(key_of(a_deployment("a")))
    assert ([one.deployment.name for one in table.entries()], table.ids()) == (["b"], ["id-b"])


def test_find() -> None:
    etl, other, new = entry("a"), entry("a2"), Entry(deployment=a_deployment("new"))
    table = registry(etl, other, new)
    assert table.find("id-a") == table.find("etl/a") == table.find("a") == [etl]
    assert table.find("new") == [new]
    assert table.find("etl") == table.find("") == table.find("None") == []


def test_two_flows_may_have_deployments_of_one_name() -> None:
    first = Entry(deployment=a_deployment("nightly", entrypoint="a.py:a"), flow="a", deployment_id="1")
    second = Entry(deployment=a_deployment("nightly", entrypoint="b.py:b"), flow="b", deployment_id="2")
    table = registry(first, second)
    assert table.find("nightly") == [first, second]
    assert table.find("b/nightly") == [second]


def test_next_runs() -> None:
    table = registry(entry("a"), entry("b", next_run_at=NOON), entry("c", deployment_id=None))
    later = NOON + timedelta(hours=1)
    table.note_next_runs({"id-a": later, "gone": NOON})
    assert [one.next_run_at for one in table.entries()] == [later, None, None]


@pytest.mark.parametrize(
    ("host", "server", "lower"), [(None, None, None), (2, None, 2), (None, 3, 3), (2, 3, 2), (3, 2, 2), (0, 5, 0)]
)
def test_the_lower_limit_holds(host: int | None, server: int | None, lower: int | None) -> None:
    deployment = a_deployment("a", run={"limit": host}, concurrency_limit=server)
    one = Entry(deployment=deployment, flow="etl", deployment_id="id")
    assert one.limit == lower
    caps = registry(one).caps(LimitSettings(runs=4, tags={"gpu": 1}), pools={})
    assert caps == Caps(runs=4, tags={"gpu": 1}, deployments={} if lower is None else {"id": lower})


def test_a_limit_of_a_group_is_none_of_the_deployment_alone() -> None:
    deployment = a_deployment("a", run={"limit": 2, "limit_group": "etl"}, concurrency_limit=3)
    caps = registry(Entry(deployment=deployment, flow="etl", deployment_id="id")).caps(LimitSettings(runs=4), pools={})
    assert caps == Caps(runs=4, deployments={"id": 3}, groups={"id": Group(name="etl", runs=2)})


# --- documents --------------------------------------------------------------------------------------------------


def test_times_are_utc_with_milliseconds() -> None:
    east = timezone(timedelta(hours=2))
    assert time_text(datetime(2025, 1, 2, 3, 4, 5, 678901, tzinfo=east)) == "2025-01-02T01:04:05.678Z"
    assert time_text(datetime(2025, 1, 2, tzinfo=UTC)) == "2025-01-02T00:00:00.000Z"
    assert time_text(None) is None


def test_a_run_under_way() -> None:
    record = a_record(
        "r-1",
        phase=Phase.STOPPING,
        intent=Intent.CANCEL,
        identity=Identity(boot_id="b", pid=7, start_ticks=1),
        pgid=7,
        user="etl",
        tags=("gpu",),
        started_at=NOON,
        pool="etl",
        queue="high",
        process_name="nightly-7",
        labels={"team": "data"},
        due_at=NOON,
        ready_s=1.5,
    )
    document = run_document(record, Usage(memory_bytes=100, cpu_s=1.5), now=NOON)
    assert document == {
        "id": "r-1",
        "here": True,
        "name": "run-r-1",
        "deployment": "nightly",
        "flow": "etl",
        "kind": "flow",
        "phase": "stopping",
        "intent": "cancel",
        "pid": 7,
        "pgid": 7,
        "user": "etl",
        "start": "cold",
        "start_problem": None,
        "attempt": 1,
        "tags": ["gpu"],
        "pool": "etl",
        "queue": "high",
        "process_name": "nightly-7",
        "labels": {"team": "data"},
        "source": None,
        "entrypoint": None,
        "output_removed": None,
        "waiting": None,
        "run_created_at": None,
        "created_at": "2025-01-01T12:00:00.000Z",
        "due_at": "2025-01-01T12:00:00.000Z",
        "held": False,
        "ready_seconds": 1.5,
        "started_at": "2025-01-01T12:00:00.000Z",
        "ended_at": None,
        "api_state": None,
        "api_state_name": None,
        "api_state_message": None,
        "exit": None,
        "memory_bytes": 100,
        "cpu_seconds": 1.5,
    }


@pytest.mark.parametrize(
    ("phase", "ahead_s", "held"),
    [
        (Phase.RUNNING, 0.5, True),
        (Phase.RUNNING, 0.0, False),
        (Phase.RUNNING, None, False),
        (Phase.STARTING, 0.5, False),
        (Phase.STOPPING, 0.5, False),
        (Phase.DONE, 0.5, False),
    ],
)
def test_a_run_is_held_while_its_process_waits_until_it_is_due(phase: Phase, ahead_s: float | None, held: bool) -> None:
    due_at = None if ahead_s is None else NOON + timedelta(seconds=ahead_s)
    assert run_document(a_record(phase=phase, due_at=due_at), now=NOON)["held"] is held


def test_no_run_is_held_by_a_clock_that_was_set_back() -> None:
    record = a_record(phase=Phase.RUNNING, due_at=NOON + timedelta(seconds=8))
    assert run_document(record, now=record.created_at)["held"] is True
    assert run_document(record, now=record.created_at - timedelta(hours=1))["held"] is False


def test_a_run_that_is_over_shows_what_it_used() -> None:
    record = a_record(
        phase=Phase.DONE,
        ended_at=NOON,
        exit=Exit(signal=9, oom=True, cpu_s=2.5, max_rss_bytes=9),
        words="killed: out of memory",
        api_state=StateType.FAILED,
        api_state_name="TimedOut",
    )
    document = run_document(record, now=NOON)
    assert document["exit"] == {"code": None, "signal": 9, "oom": True, "words": "killed: out of memory"}
    assert (document["memory_bytes"], document["cpu_seconds"]) == (9, 2.5)
    assert (document["api_state"], document["api_state_name"]) == ("FAILED", "TimedOut")


def test_a_run_that_nobody_saw_end() -> None:
    document = run_document(a_record(phase=Phase.DONE, ended_at=NOON, words="the host restarted"), now=NOON)
    assert document["exit"] == {"code": None, "signal": None, "oom": False, "words": "the host restarted"}


def test_an_offered_run_has_every_key_of_a_run() -> None:
    offered = FlowRun(
        id="r-1",
        name="brave-fox",
        flow_id="f",
        deployment_id="d",
        state=ApiState(type=StateType.SCHEDULED, name="Late"),
        expected_start_time=NOON,
    )
    document = offered_document(offered, entry(), waiting="limits.runs 1 is reached")
    assert set(run_document(a_record(), now=NOON)) - {"attempt"} <= set(document)
    assert (document["phase"], document["deployment"], document["flow"]) == (None, "nightly", "etl")
    assert document["waiting"] == "limits.runs 1 is reached"
    assert offered_document(offered, None)["deployment"] is None


def test_a_deployment() -> None:
    assert deployment_document(entry(next_run_at=NOON, problem="p"), running=2, held=1) == {
        "id": "id-nightly",
        "name": "nightly",
        "flow": "etl",
        "file": "/etc/runnerd/conf.d/10.yaml",
        "line": 3,
        "state": "ready",
        "problem": "p",
        "next_run_at": "2025-01-01T12:00:00.000Z",
        "running": 2,
        "held": 1,
        "limit": None,
        "entrypoint": "nightly.py:flow",
        "kind": "flow",
        "command": None,
        "tags": [],
        "pool": None,
        "source": None,
    }
    assert deployment_document(entry(next_run_at=NOON, paused=True), running=0, held=0)["next_run_at"] is None


def test_problems_and_the_api() -> None:
    problem = Problem(message="m", place=Place("f", 1, 2), deployment="d")
    assert problem_document(problem) == {"message": "m", "file": "f", "line": 1, "column": 2, "deployment": "d"}
    assert problem_document(Problem(message="m"))["file"] is None
    health = ApiHealth(condition=ApiCondition.DEGRADED, since=NOON, detail="401")
    wanted = {
        "url": "u",
        "state": "degraded",
        "maintenance": False,
        "since": "2025-01-01T12:00:00.000Z",
        "detail": "401",
    }
    assert api_document("u", health) == wanted


def test_limits_count_what_is_live() -> None:
    records = [
        a_record("1", phase=Phase.RUNNING, tags=("gpu",)),
        a_record("2", phase=Phase.REPORTING, tags=("gpu", "db")),
        a_record("3", phase=Phase.DONE, tags=("gpu",)),
    ]
    assert limits_document(records, runs=5, tags={"gpu": 2, "db": 1}) == {
        "runs": {"used": 2, "max": 5},
        "tags": {"db": {"used": 1, "max": 1}, "gpu": {"used": 2, "max": 2}},
    }
