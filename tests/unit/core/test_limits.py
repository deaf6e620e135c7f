"""limits.py: a full limit skips the runs it concerns and holds up nobody else."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runnerd.core.limits import Admission, Bucket, Caps, Claimant, Group, PoolCaps, admit, find_holders
from runnerd.core.prefect import ApiState, FlowRun, StateType, due
from runnerd.core.settings import LatePolicy
from runnerd.polling.lateness import Lateness, judge_late
from tests.kits.nouns import NOON


def claimant(run_id: str, deployment_id: str | None = None, *tags: str) -> Claimant:
    return Claimant(run_id=run_id, deployment_id=deployment_id, tags=tags)


def admitted(offers: list[Claimant], caps: Caps, live: list[Claimant] | None = None) -> Admission:
    return admit(offers, live or [], caps)


# --- slots ----------------------------------------------------------------------------------------------------


def test_the_host_is_full() -> None:
    got = admitted([claimant("a"), claimant("b")], Caps(runs=2), live=[claimant("x")])
    assert got.admitted == ("a",)
    assert got.skipped == {"b": "limits.runs 2 is reached"}


def test_a_full_deployment_does_not_hold_up_the_next() -> None:
    offers = [claimant("a1", "A"), claimant("a2", "A"), claimant("b1", "B"), claimant("a3", "A"), claimant("c1", "C")]
    got = admitted(offers, Caps(runs=10, deployments={"A": 1, "B": 1}))
    assert got.admitted == ("a1", "b1", "c1")
    assert got.skipped == dict.fromkeys(("a2", "a3"), "the deployment's limit 1 is reached")


def test_the_members_of_a_group_share_a_limit() -> None:
    groups = {"A": Group(name="etl", runs=2), "B": Group(name="etl", runs=3), "C": Group(name="etl", runs=None)}
    caps = Caps(runs=10, groups=groups | {"X": Group(name="other", runs=1)})
    offers = [claimant("a", "A"), claimant("x", "X"), claimant("b1", "B"), claimant("b2", "B"), claimant("c", "C")]
    got = admitted(offers, caps, live=[claimant("before", "C")])
    assert got.admitted == ("a", "x", "b1", "c")
    assert got.skipped == {"b2": "run.limit 3 of the group etl is reached"}
    live = [claimant("y", "B"), claimant("z", "C"), claimant("other", "X"), claimant("none")]
    assert find_holders(claimant("a", "A"), live, caps) == ("y", "z")
    assert find_holders(claimant("b", "B"), live, caps) == ()


def test_a_full_tag_does_not_hold_up_the_next() -> None:
    offers = [claimant("a", None, "gpu"), claimant("b", None, "gpu"), claimant("c", None, "cpu"), claimant("d")]
    got = admitted(offers, Caps(runs=10, tags={"gpu": 1}))
    assert got.admitted == ("a", "c", "d")
    assert got.skipped == {"b": "limits.tags gpu 1 is reached"}


def test_each_of_several_tags_needs_room() -> None:
    caps = Caps(runs=10, tags={"gpu": 1, "db": 2})
    live = [claimant("x", None, "db"), claimant("y", None, "db")]
    offers = [claimant("a", None, "gpu", "db"), claimant("b", None, "gpu"), claimant("c", None, "other", "gpu")]
    got = admitted(offers, caps, live)
    assert got.admitted == ("b",)
    assert got.skipped == {"a": "limits.tags db 2 is reached", "c": "limits.tags gpu 1 is reached"}


def test_a_skipped_run_takes_up_nothing() -> None:
    """`a` lacks a db slot, so it must not use up the gpu's."""
    caps = Caps(runs=1, tags={"gpu": 1, "db": 0})
    assert admitted([claimant("a", None, "gpu", "db"), claimant("b", None, "gpu")], caps).admitted == ("b",)


def test_a_tag_said_twice_counts_once() -> None:
    caps = Caps(runs=10, tags={"gpu": 2})
    live = [claimant("x", None, "gpu", "gpu")]
    assert admitted([claimant("a", None, "gpu", "gpu"), claimant("b", None, "gpu")], caps, live).admitted == ("a",)


def test_a_limit_of_zero_lets_nobody_in() -> None:
    caps = Caps(runs=10, tags={"gpu": 0}, deployments={"A": 0})
    got = admitted([claimant("a", "A"), claimant("b", None, "gpu"), claimant("c")], caps)
    assert got.admitted == ("c",)


def test_live_runs_without_a_deployment_count_for_the_host_only() -> None:
    got = admitted([claimant("a", "A")], Caps(runs=2, deployments={"A": 1}), live=[claimant("x", None)])
    assert got.admitted == ("a",)


def test_lowered_limits_end_nothing_and_let_nobody_in() -> None:
    live = [claimant(str(n), "A", "gpu") for n in range(5)]
    assert admitted([claimant("a", "B")], Caps(runs=3), live).admitted == ()


claimants = st.builds(
    claimant, st.uuids().map(str), st.sampled_from([None, "A", "B"]), st.sampled_from(["gpu", "db", "x"])
)


@given(st.lists(claimants, max_size=15), st.lists(claimants, max_size=6), st.integers(0, 8), st.integers(0, 3))
def test_no_limit_is_exceeded_and_nobody_waits_for_nothing(
    offers: list[Claimant], live: list[Claimant], runs: int, each: int
) -> None:
    caps = Caps(runs=runs, tags={"gpu": each}, deployments={"A": each})
    got = admitted(offers, caps, live)
    by_id = {offer.run_id: offer for offer in offers}
    now = [*live, *(by_id[run_id] for run_id in got.admitted)]
    assert set(got.admitted) | set(got.skipped) == set(by_id)
    assert len(now) <= max(runs, len(live))
    in_a = [sum(one.deployment_id == "A" for one in some) for some in (now, live)]
    with_gpu = [sum("gpu" in one.tags for one in some) for some in (now, live)]
    assert in_a[0] <= max(each, in_a[1])
    assert with_gpu[0] <= max(each, with_gpu[1])
    for run_id in got.skipped:
        one = by_id[run_id]
        full = len(now) >= runs or (one.deployment_id == "A" and in_a[0] >= each)
        assert full or ("gpu" in one.tags and with_gpu[0] >= each)


# --- start_rate -----------------------------------------------------------------------------------------------


def taken(bucket: Bucket, now: float) -> tuple[int, Bucket]:
    """How many tokens there are at `now`."""
    count = 0
    while (after := bucket.take(now)) is not None:
        bucket, count = after, count + 1
    return count, bucket


def test_a_second_s_worth_is_saved_up_at_most() -> None:
    count, bucket = taken(Bucket(rate=10.0, tokens=10.0, at=100.0), 100.0)
    assert count == 10
    assert taken(bucket, 100.35)[0] == 3
    assert taken(bucket, 9999.0)[0] == 10


def test_a_slow_rate_saves_one() -> None:
    count, bucket = taken(Bucket(rate=0.1, tokens=1.0, at=0.0), 0.0)
    assert count == 1
    assert bucket.take(9.9) is None
    assert bucket.wait_s(4.0) == pytest.approx(6.0)
    assert taken(bucket, 10.0)[0] == 1
    assert taken(bucket, 1000.0)[0] == 1


def test_a_clock_that_jumps_back_gives_nothing_and_loses_nothing() -> None:
    _, empty = taken(Bucket(rate=1.0, tokens=1.0, at=1000.0), 1000.0)
    assert empty.take(10.0) is None
    back = empty.refill(10.0)
    assert (back.tokens, back.at) == (0.0, 1000.0)
    assert empty.refill(10.0).take(1001.0) is not None


def test_waiting_as_long_as_told_is_enough() -> None:
    _, bucket = taken(Bucket(rate=3.0, tokens=3.0, at=50.0), 50.0)
    wait_s = bucket.wait_s(50.1)
    assert 0 < wait_s < 1 / 3
    assert bucket.take(50.1 + wait_s + 1e-9) is not None
    assert Bucket(rate=3.0, tokens=2.0, at=50.0).wait_s(50.0) == 0.0


# --- late runs ------------------------------------------------------------------------------------------------


def run(
    run_id: str,
    ago_s: float | None,
    deployment_id: str | None = "A",
    *,
    scheduled: bool = True,
    expected: bool = False,
    name: str = "Scheduled",
) -> FlowRun:
    at = None if ago_s is None else NOON - timedelta(seconds=ago_s)
    return FlowRun(
        id=run_id,
        name=run_id,
        flow_id="f",
        deployment_id=deployment_id,
        state=ApiState(type=StateType.SCHEDULED, name=name),
        next_scheduled_start_time=None if expected else at,
        expected_start_time=at if expected else None,
        auto_scheduled=scheduled,
    )


def judge(policy: LatePolicy, *offers: FlowRun, now: datetime = NOON) -> tuple[list[str], list[str]]:
    got: Lateness = judge_late(offers, now=now, after_s=600, policy=policy)
    return [one.id for one in got.keep], [one.id for one in got.drop]


def test_run_keeps_everything() -> None:
    assert judge("run", run("a", 99999), run("b", 0)) == (["a", "b"], [])


def test_skip_lets_go_of_what_is_late() -> None:
    offers = (run("a", 601), run("b", 600), run("c", -5), run("d", 7200, expected=True), run("e", None))
    assert judge("skip", *offers) == (["b", "c", "e"], ["a", "d"])


def test_latest_keeps_the_newest_late_one_of_each_deployment() -> None:
    offers = (
        run("a1", 3000),
        run("a3", 1000),
        run("a2", 2000),
        run("b1", 5000, "B"),
        run("a4", 10),
        run("n1", 900, None),
        run("n2", 800, None),
    )
    assert judge("latest", *offers) == (["a3", "b1", "a4", "n2"], ["a1", "a2", "n1"])


def test_those_spared_are_told_apart() -> None:
    offers = (run("a1", 3000), run("a2", 2000), run("a3", 10))
    got = judge_late(offers, now=NOON, after_s=600, policy="latest")
    assert [one.id for one in got.spared] == ["a2"]
    assert judge_late(offers, now=NOON, after_s=600, policy="skip").spared == ()


@pytest.mark.parametrize("policy", ["skip", "latest"])
@pytest.mark.parametrize("name", ["AwaitingRetry", "Resuming", "AwaitingConcurrencySlot"])
def test_what_was_begun_before_is_never_late(policy: LatePolicy, name: str) -> None:
    offers = (run("a", 99999, name=name), run("b", 99998, name="Late"), run("c", 99997))
    assert "a" in judge(policy, *offers)[0]
    assert "b" in judge(policy, *offers)[1]


@pytest.mark.parametrize("policy", ["skip", "latest"])
def test_what_was_on_offer_in_time_is_never_late(policy: LatePolicy) -> None:
    offers = (run("a", 3000), run("b", 2000), run("c", 1000))
    got = judge_late(offers, now=NOON, after_s=600, policy=policy, in_time={"a"})
    assert [one.id for one in got.drop] == (["b", "c"] if policy == "skip" else ["b"])


@pytest.mark.parametrize("policy", ["skip", "latest"])
def test_what_somebody_asked_for_is_never_late(policy: LatePolicy) -> None:
    offers = (run("a", 99999, scheduled=False), run("b", 99998, scheduled=False))
    assert judge(policy, *offers) == (["a", "b"], [])


def test_due_is_the_next_start_else_the_expected_one() -> None:
    assert due(run("a", 5)) == NOON - timedelta(seconds=5)
    assert due(run("a", 7, expected=True)) == NOON - timedelta(seconds=7)
    assert due(run("a", None)) is None


def test_who_holds_the_slots_of_the_limit_that_keeps_a_run_out() -> None:
    live = [claimant("x", "A", "gpu"), claimant("y", "B"), claimant("z", "A")]
    offer = claimant("a", "A", "gpu")
    assert find_holders(offer, live, Caps(runs=3)) == ("x", "y", "z")
    assert find_holders(offer, live, Caps(runs=9, deployments={"A": 2, "B": 1})) == ("x", "z")
    assert find_holders(offer, live, Caps(runs=9, tags={"cpu": 1, "gpu": 1})) == ("x",)
    assert find_holders(offer, live, Caps(runs=9)) == ()


def test_who_holds_the_slots_of_a_pools_limit() -> None:
    live = [replace(claimant(name, name), pool="etl", queue=queue) for name, queue in (("x", "q"), ("y", "r"))]
    offer = replace(claimant("a", "y"), pool="etl", queue="q")
    for caps, holders in (
        (PoolCaps(runs=2), ("x", "y")),
        (PoolCaps(queues={"q": 1}), ("x",)),
        (PoolCaps(each_deployment=1), ("y",)),
    ):
        assert find_holders(offer, live, Caps(runs=9, pools={"etl": caps})) == holders
