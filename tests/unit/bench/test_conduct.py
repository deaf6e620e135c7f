"""What is measured when, who comes first, what is repeated, and waits that end."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.bench import rows
from tests.bench.__main__ import chosen_mode
from tests.bench.conduct import repetitions, steps_of
from tests.bench.modes import FULL, MODES, QUICK, Burst, Mode, SessionPlan
from tests.bench.quiet import line_up
from tests.bench.report import not_reached
from tests.bench.results import Results
from tests.bench.rows import COLD, RUNNING, SERVE, WARM, WORKER
from tests.bench.waiting import Deadline, NotReached, OutOfTime


class Clock:
    """Moves by `step` at each look."""

    def __init__(self, step: float = 0.0) -> None:
        self.now, self.step = 100.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


# --- the order --------------------------------------------------------------------------------------------------


def test_every_contender_is_first_and_last_in_its_turn() -> None:
    orders = [[step.who for step in steps_of(FULL, number, 3) if step.plan.name == "default"] for number in range(4)]
    assert orders[0] == list(RUNNING)
    assert {order[0] for order in orders} == {order[-1] for order in orders} == set(RUNNING)
    assert all(sorted(order) == sorted(RUNNING) for order in orders)


def test_no_contender_is_first_in_all_sessions_of_a_round() -> None:
    firsts = [
        next(step.who for step in steps_of(QUICK, 0, 3) if step.plan.name == name) for name in ("default", "fast")
    ]
    assert len(set(firsts)) == 2


def test_each_major_has_its_sessions() -> None:
    assert {step.who for step in steps_of(QUICK, 0, 2)} == {COLD, SERVE}
    assert {step.plan.name for step in steps_of(QUICK, 0, 2)} == {"default-2", "fast-2"}
    assert {step.plan.name for step in steps_of(QUICK, 0, 3)} == {"default", "fast"}


def test_all_sizes_idle_at_once() -> None:
    found = line_up(FULL.quiet)
    assert len(set(found)) == len(found)
    assert {size for who, size, _ in found if who == WORKER} == {1, 100, 1000}
    assert [one for one in found if one[2]] == [(COLD, 1, True)]


# --- the modes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES.values(), ids=list(MODES))
def test_every_row_has_a_name_of_its_own_and_a_place_in_the_document(mode: Mode) -> None:
    for major in (2, 3):
        keys = [row.key for row in mode.timed_rows(major)]
        assert len(set(keys)) == len(keys) > 0
    planned = {row.key for plan in mode.sessions for major in plan.majors for row in plan.rows()}
    assert planned <= {row.key for major in (2, 3) for row in mode.timed_rows(major)}


def test_the_full_mode_has_the_documented_counts_and_targets() -> None:
    by_key = {row.key: row for row in FULL.timed_rows(3)}
    assert by_key["burst-40-8"].targets == {WARM: 12.0, COLD: 36.0}
    assert by_key["memory-8"].targets == {WARM: 340.0}
    assert {"burst-200-16", "memory-32", "memory-100"} <= set(by_key)
    growth = {row.key: row for row in FULL.growth_rows()}
    assert growth["growth-ready-1000"].targets == {COLD: 30.0}
    assert {row.key for row in FULL.timed_rows(2)} == {
        "adhoc", "burst-16-8", "memory-8", "cancel-gone", "cancel-reported", "idle-pss",
    }  # fmt: skip


def test_a_smaller_burst_is_held_to_a_smaller_target() -> None:
    assert rows.burst_row(20, 8).targets == {WARM: 6.0, COLD: 18.0}
    assert rows.burst_row(20, 16).targets == {}


def test_a_mode_is_chosen_by_the_environment() -> None:
    assert chosen_mode({}) is FULL
    assert chosen_mode({"BENCH": "quick"}) is QUICK
    assert chosen_mode({"BENCH": "quickly"}) is None
    longer = chosen_mode({"BENCH": "quick", "BENCH_MINUTES": "20"})
    assert longer is not None and (longer.seconds, longer.sessions) == (1200, QUICK.sessions)


# --- repetitions --------------------------------------------------------------------------------------------------

PLAN = SessionPlan(
    "default", 10, idle_s=1, adhoc=2, late=3, concurrent=(8, 32), polite=2, stubborn=1, bursts=(Burst(40),)
)
ONE = Mode("one", "", 60, 1, 1, (PLAN,), QUICK.quiet, 1)


def filled(who: str) -> Results:
    """Two equal samples of everything for one contender."""
    results = Results(absent={other: "not here" for other in RUNNING if other != who})
    for row in PLAN.rows():
        for _ in range(2):
            results.add(3, row.samples_of, who, 5.0)
    return results


def test_what_is_steady_is_not_repeated() -> None:
    assert repetitions(ONE, 1, 3, filled(COLD)) == []


def test_only_what_is_wide_is_repeated() -> None:
    results = filled(COLD)
    results.add(3, "adhoc", COLD, 500.0)
    results.add(3, "adhoc", COLD, 900.0)
    (step,) = repetitions(ONE, 1, 3, results)
    assert (step.who, step.plan.adhoc) == (COLD, 2)
    assert (step.plan.late, step.plan.concurrent, step.plan.bursts, step.plan.idle_s) == (0, (), (), 0.0)


def test_what_was_not_reached_is_repeated_and_what_is_absent_is_not() -> None:
    found = [step.who for step in repetitions(ONE, 0, 3, Results(absent={WARM: "not here"}))]
    assert found == [COLD, SERVE, WORKER]


def test_what_a_contender_is_not_measured_in_is_not_repeated() -> None:
    plan = replace(PLAN, stubborn_of=(COLD,))
    mode = replace(ONE, sessions=(plan,))
    results = filled(SERVE)
    del results.samples[3, "stubborn", SERVE]
    assert repetitions(mode, 1, 3, results) == []
    assert not [what for what in not_reached(mode, results) if "stubborn" in what]
    results = filled(COLD)
    del results.samples[3, "stubborn", COLD]
    assert [step.plan.stubborn for step in repetitions(mode, 1, 3, results)] == [1]
    assert [what for what in not_reached(mode, results) if "stubborn" in what]


def test_cancelled_runs_need_runs_that_sleep() -> None:
    assert PLAN.only({"cancel-reported"}).concurrent == (8,)
    assert PLAN.only({"cancel-reported"}).polite == 2
    assert PLAN.only({"stubborn", "memory-32"}).concurrent == (32,)
    assert PLAN.only({"late"}).concurrent == ()
    assert PLAN.only({"burst-40-10"}).bursts == (Burst(40),)


# --- waits --------------------------------------------------------------------------------------------------------


def test_a_wait_ends_with_what_it_waited_for() -> None:
    found = iter([0, "", "there"])
    assert Deadline(10, clock=Clock()).wait(lambda: next(found), "it", 5, every_s=0) == "there"


def test_a_wait_ends_with_its_limit() -> None:
    with pytest.raises(NotReached, match=r"waited 5 s for the moon"):
        Deadline(1000, clock=Clock(step=1)).wait(lambda: False, "the moon", 5, every_s=0)


def test_a_wait_ends_with_the_time_of_all() -> None:
    with pytest.raises(OutOfTime):
        Deadline(3, clock=Clock(step=1)).wait(lambda: False, "the moon", 500, every_s=0)


def test_a_part_ends_in_its_own_time_and_lets_the_others_go_on() -> None:
    clock = Clock()
    whole = Deadline(100, clock=clock)
    part = whole.part(10)
    clock.now += 11
    with pytest.raises(NotReached, match="more than 10 s"):
        part.check()
    whole.check()
    clock.now += 90
    with pytest.raises(OutOfTime):
        part.check()
    assert whole.part(50).left_s == 0


def test_time_that_is_over_is_not_negative() -> None:
    clock = Clock()
    deadline = Deadline(10, clock=clock)
    clock.now += 25
    assert (deadline.left_s, deadline.spent_s) == (0.0, 25.0)
    with pytest.raises(OutOfTime):
        deadline.check()
