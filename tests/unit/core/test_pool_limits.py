"""limits.py over work pools: each limit keeps out its own runs only, and several sources take turns by time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runnerd.core.limits import Admission, Caps, Claimant, PoolCaps, admit
from runnerd.core.prefect import ApiState, FlowRun, StateType
from runnerd.polling.on_offer import in_turn
from tests.kits.nouns import NOON


def of_pool(run_id: str, pool: str | None = "etl", queue: str = "default", deployment: str | None = None) -> Claimant:
    deployment_id = deployment or f"deployment of {run_id}"
    return Claimant(run_id=run_id, deployment_id=deployment_id, tags=(), pool=pool, queue=queue)


def admitted(
    offers: list[Claimant], *live: Claimant, runs: int = 100, tags: dict[str, int] | None = None, **pools: PoolCaps
) -> Admission:
    return admit(offers, live, Caps(runs=runs, tags=tags or {}, pools=pools))


# --- a pool's limits --------------------------------------------------------------------------------------------


def test_a_full_pool_does_not_hold_up_another() -> None:
    offers = [of_pool("a1", "a"), of_pool("a2", "a"), of_pool("b1", "b"), of_pool("a3", "a"), of_pool("own", None)]
    got = admitted(offers, a=PoolCaps(runs=1), b=PoolCaps(runs=2))
    assert got.admitted == ("a1", "b1", "own")
    assert got.skipped == dict.fromkeys(("a2", "a3"), "pool a's limit 1 is reached")
    assert (got.full, got.full_pools) == (False, frozenset({"a"}))


def test_a_queue_s_concurrency_limit_concerns_that_queue_of_that_pool() -> None:
    offers = [of_pool("1", "a", "high"), of_pool("2", "a", "low"), of_pool("3", "b", "high"), of_pool("4", "a", "high")]
    got = admitted(offers, of_pool("x", "a", "high"), a=PoolCaps(queues={"high": 2}), b=PoolCaps(queues={"low": 0}))
    assert got.admitted == ("1", "2", "3")
    assert got.skipped == {"4": "queue high's concurrency limit 2 is reached"}
    assert got.full_pools == frozenset(), "its other queues have room"


def test_run_limit_counts_each_deployment_by_itself() -> None:
    offers = [of_pool("1", deployment="A"), of_pool("2", deployment="A"), of_pool("3", deployment="B")]
    got = admitted(offers, of_pool("x", deployment="B"), etl=PoolCaps(each_deployment=1))
    assert got.admitted == ("1",)
    assert got.skipped == dict.fromkeys(("2", "3"), "pool etl's run.limit 1 is reached")


def test_the_limit_that_is_said_is_the_one_of_most() -> None:
    """The pool's, then its queue's, then its deployments'; the host's own before all."""
    caps = PoolCaps(runs=1, queues={"default": 1}, each_deployment=1)
    live = of_pool("x", deployment="A")
    assert admitted([of_pool("1", deployment="A")], live, etl=caps).skipped == {"1": "pool etl's limit 1 is reached"}
    wider = PoolCaps(runs=9, queues={"default": 1}, each_deployment=1)
    words = "queue default's concurrency limit 1 is reached"
    assert admitted([of_pool("1", deployment="A")], live, etl=wider).skipped == {"1": words}
    assert admitted([of_pool("1")], live, runs=1, etl=caps).skipped == {"1": "limits.runs 1 is reached"}


def test_tags_of_the_host_hold_for_runs_of_pools() -> None:
    tagged = Claimant(run_id="1", deployment_id="A", tags=("gpu",), pool="etl", queue="default")
    got = admitted([tagged, of_pool("2")], tags={"gpu": 0}, etl=PoolCaps())
    assert (got.admitted, got.skipped) == (("2",), {"1": "limits.tags gpu 0 is reached"})


def test_a_limit_of_zero() -> None:
    got = admitted([of_pool("1"), of_pool("2", "b", "q"), of_pool("3", "c")], etl=PoolCaps(runs=0),
                   b=PoolCaps(queues={"q": 0}), c=PoolCaps(each_deployment=0))  # fmt: skip
    assert got.admitted == ()
    assert got.full_pools == frozenset({"etl"})


def test_runs_of_a_pool_that_is_not_served_any_more_count_for_the_host_only() -> None:
    gone = [of_pool("x", "gone"), of_pool("y", "gone")]
    got = admitted([of_pool("1"), of_pool("2"), of_pool("3", None)], *gone, runs=4, etl=PoolCaps(runs=1))
    assert got.admitted == ("1", "3")
    assert (got.full, got.full_pools) == (True, frozenset({"etl"}))


def test_a_pool_is_full_also_when_nothing_of_it_is_offered() -> None:
    got = admitted([], of_pool("x"), of_pool("y"), etl=PoolCaps(runs=2), b=PoolCaps(runs=1))
    assert (got.full, got.full_pools) == (False, frozenset({"etl"}))


def test_a_run_that_is_skipped_takes_up_nothing_of_its_pool() -> None:
    caps = PoolCaps(runs=1, queues={"low": 0})
    got = admitted([of_pool("1", queue="low"), of_pool("2", queue="high")], etl=caps)
    assert got.admitted == ("2",)


claimants = st.builds(
    of_pool, st.uuids().map(str), st.sampled_from([None, "a", "b"]), st.sampled_from("xy"), st.sampled_from("AB")
)


@given(st.lists(claimants, max_size=15), st.lists(claimants, max_size=5), st.integers(0, 9), st.integers(0, 3))
def test_no_limit_is_exceeded_and_nobody_waits_for_nothing(
    offers: list[Claimant], live: list[Claimant], most: int, each: int
) -> None:
    caps = PoolCaps(runs=most, each_deployment=each, queues={"x": each})
    got = admitted(offers, *live, runs=10, a=caps)
    now = [*live, *(one for one in offers if one.run_id in got.admitted)]

    def counts(some: list[Claimant], deployment: str | None) -> tuple[int, int, int]:
        in_a = [one for one in some if one.pool == "a"]
        same = sum(one.deployment_id == deployment for one in some)
        return len(in_a), sum(one.queue == "x" for one in in_a), same

    assert len(now) <= max(10, len(live))
    assert counts(now, None)[0] <= max(most, counts(live, None)[0])
    assert counts(now, None)[1] <= max(each, counts(live, None)[1])
    for one in offers:
        if one.run_id in got.skipped:
            in_a, in_x, same = counts(now, one.deployment_id)
            reached = in_a >= most or (one.queue == "x" and in_x >= each) or same >= each
            assert len(now) >= 10 or (one.pool == "a" and reached)


# --- taking turns -----------------------------------------------------------------------------------------------


def due_at(run_id: str, at_s: float | None, pool: str | None = None) -> FlowRun:
    at = None if at_s is None else NOON.fromtimestamp(NOON.timestamp() + at_s, tz=NOON.tzinfo)
    state = ApiState(type=StateType.SCHEDULED, name="Scheduled")
    return FlowRun(
        id=run_id, name=run_id, flow_id="f", deployment_id="d", state=state, expected_start_time=at, pool=pool
    )


@pytest.mark.parametrize(
    ("offers", "order"),
    [
        ([], ""),
        ([due_at("a", 1), due_at("b", 2)], "ab"),
        ([due_at("a", 1), due_at("b", 5), due_at("x", 3, "p"), due_at("y", 7, "p")], "axby"),
        ([due_at("x", 3, "p"), due_at("y", 7, "p"), due_at("a", 1), due_at("b", 5), due_at("m", 4, "q")], "axmby"),
        # A pool's own order is that of its queues' priorities: z is of the first queue, however late it is due.
        ([due_at("z", 9, "p"), due_at("x", 1, "p"), due_at("a", 5)], "azx"),
        # What has no time is due now.
        ([due_at("a", 1), due_at("x", None, "p"), due_at("y", 5, "p")], "xay"),
        # At the same time they are taken as they come.
        ([due_at("a", 1), due_at("b", 1), due_at("x", 1, "p"), due_at("y", 1, "p")], "abxy"),
    ],
)
def test_sources_take_turns_by_time(offers: list[FlowRun], order: str) -> None:
    assert "".join(run.id for run in in_turn(offers)) == order


runs = st.builds(due_at, st.uuids().map(str), st.integers(-1000, 1000), st.sampled_from([None, "p", "q"]))


@given(st.lists(runs, max_size=30))
def test_nothing_is_lost_and_the_order_of_each_source_stays(offers: list[FlowRun]) -> None:
    got = in_turn(offers)
    assert sorted(run.id for run in got) == sorted(run.id for run in offers)
    for pool in (None, "p", "q"):
        assert [run for run in got if run.pool == pool] == [run for run in offers if run.pool == pool]


@given(st.lists(runs, max_size=30))
def test_whoever_comes_first_is_not_due_after_another_source_s_first(offers: list[FlowRun]) -> None:
    left = in_turn(offers)
    while left:
        first = {run.pool: run for run in reversed(left)}
        due = left[0].expected_start_time
        assert due is not None
        assert all(due <= (one.expected_start_time or due) for one in first.values())
        del left[0]
