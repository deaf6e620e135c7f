"""What the chaos rounds call a violation, and that a seed makes the same round each time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.chaos.chaos_checks import RoundFacts, RunFacts, State, violations
from tests.chaos.chaos_plan import KINDS, Cancel, Plan, Wanted, Window, make_plan
from tests.kits.fault_proxy import DAEMON, FLOW, answer

PLAN = Plan(name="seed 1", major=3, runs=())
CANCEL = Cancel(how="api", when="begun", delay_s=0.0)


def states(*types: str) -> tuple[State, ...]:
    return tuple(State(type=kind, name=kind.title()) for kind in types)


def ended(kind: str, *types: str, **more: Any) -> RunFacts:
    cancel = CANCEL if kind == "leads" else None
    known: dict[str, Any] = {"lines": 1, "phase": "done", "asked": cancel is not None}
    owed = {"CANCELLED": ("on_cancellation",), "CRASHED": ("on_crashed",)}.get(types[-1], ())
    known["hooks"] = owed
    return RunFacts(wanted=Wanted(kind, cancel), id="R", states=states("PENDING", *types), **{**known, **more})


def found(run: RunFacts, plan: Plan = PLAN, **more: Any) -> list[str]:
    return violations(RoundFacts(plan=plan, runs=(run,), **more))


RIGHT = [
    ended("quick", "RUNNING", "COMPLETED"),
    ended("raises", "RUNNING", "FAILED"),
    ended("segv", "RUNNING", "CRASHED"),
    ended("leads", "RUNNING", "CANCELLING", "CANCELLED"),
    ended("leads", "CANCELLED", lines=0, hooks=(), begun_before=False),
    ended("overruns", "FAILED", lines=0),
    ended("broken", "FAILED", lines=0),
]
WRONG = {
    "ended CRASHED instead of COMPLETED": ended("quick", "CRASHED"),
    "did not end: it is RUNNING": ended("quick", "RUNNING"),
    "ended more than once": ended("quick", "COMPLETED", "COMPLETED"),
    "ended more than once: CRASHED, CANCELLED": ended("leads", "CRASHED", "CANCELLED"),
    "went on after it had ended": ended("quick", "COMPLETED", "RUNNING", "COMPLETED"),
    "its body ran 2 times": ended("quick", "COMPLETED", lines=2),
    "its body did not run": ended("quick", "COMPLETED", lines=0),
    "the journal does not know of it": ended("quick", "COMPLETED", phase=None),
    "the journal has it in reporting": ended("quick", "COMPLETED", phase="reporting"),
    "on_crashed hooks ran and it ended CANCELLED": ended("leads", "CANCELLED", hooks=("on_crashed", "on_cancellation")),
    "on_crashed hooks ran 2 times": ended("exits", "CRASHED", hooks=("on_crashed", "on_crashed")),
    "on_cancellation hooks did not run": ended("leads", "CANCELLED", hooks=()),
}
LEFT: dict[str, dict[str, Any]] = {
    "not settled: x": {"unsettled": "x"},
    "a process is left: x": {"strangers": ("x",)},
    "not done by": {"unfinished": ("x",)},
    "a run that nobody created: x": {"rows": ("x",)},
    "the spawner keeps a record: x": {"records": ("x",)},
    "an output file without": {"outputs": ("x",)},
    "a file is left: x": {"files": ("x",)},
    "a problem in": {"problems": ("x",)},
    "ended by itself: x": {"exits": ("x",)},
    "an exception in the daemon's log: x": {"exceptions": ("x",)},
    "3 slots of this host": {"used": 3},
    "1 slots of the deployment's": {"slots": 1},
}


@pytest.mark.parametrize("run", RIGHT, ids=lambda run: f"{run.wanted.kind}-{run.states[-1].type}-{run.lines}")
def test_what_is_right_is_no_violation(run: RunFacts) -> None:
    assert found(run) == []


@pytest.mark.parametrize("words", WRONG)
def test_a_run_that_went_wrong_is_found(words: str) -> None:
    seen = found(WRONG[words])
    assert any(words in one for one in seen), seen


@pytest.mark.parametrize("words", LEFT)
def test_what_is_left_is_found(words: str) -> None:
    seen = found(RIGHT[0], **LEFT[words])
    assert len(seen) == 1
    assert words in seen[0]


def test_a_child_that_was_not_told_may_report_its_crash_first() -> None:
    run = ended("leads", "RUNNING", "CRASHED", "CANCELLED", hooks=("on_crashed", "on_cancellation"))
    assert found(run) != []
    assert found(run, replace(PLAN, major=2)) == []
    assert found(run, spawner_killed=True) == []


def test_a_flow_whose_own_calls_were_broken_may_crash_and_nothing_else() -> None:
    broken = replace(PLAN, windows=(Window("api", 0, 1, answer(503), FLOW),))
    run = ended("quick", "CRASHED", lines=0)
    assert found(run, broken) == []
    assert found(run, replace(PLAN, windows=(Window("api", 0, 1, answer(503), DAEMON),))) != []
    assert found(ended("quick", "CANCELLED"), broken) != []
    assert found(ended("quick", "CRASHED", lines=2), broken) != []


def test_an_exception_is_to_be_expected_where_the_disk_was_full() -> None:
    full = replace(PLAN, windows=(Window("full", 0, 1),))
    assert found(RIGHT[0], full, exceptions=("runnerd.errors.JournalError: x",)) == []
    assert found(RIGHT[0], full, exceptions=("KeyError: x",)) != []


def test_a_seed_makes_the_same_round_each_time_and_each_seed_another() -> None:
    plans = [make_plan(seed, 3) for seed in range(200)]
    assert plans == [make_plan(seed, 3) for seed in range(200)]
    assert len({str(plan) for plan in plans}) == 200
    assert {run.kind for plan in plans for run in plan.runs} == set(KINDS)
    assert all(1 <= len(plan.runs) <= 4 and plan.faults() for plan in plans)
    assert {len(plan.lives) for plan in plans} == {0, 1, 2, 3}
    assert all(run.kind != "limited" for seed in range(200) for run in make_plan(seed, 2).runs)
