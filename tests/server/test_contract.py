"""One contract, four servers: FakePrefect as 2.20 and as 3.x, and the real ones that it stands for."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from runnerd.core.prefect import ApiCondition, StateType, Verdict
from runnerd.prefect_api.answers import ClaimOutcome
from tests.kits.contract import (
    CANCELLED,
    CANCELLING,
    NOBODY,
    PENDING,
    RUNNING,
    WISH,
    Server,
    due,
    new_id,
    text,
)

# --- the server itself ----------------------------------------------------------------------------------------


async def test_the_server_tells_its_version(server: Server) -> None:
    async with server.visit() as visit:
        info = await visit.insist(visit.api.server)
        assert (info.major, info.supported, info.why) == (visit.major, True, None)
        assert info.version == server.version
        assert visit.api.health.condition is ApiCondition.OK


# --- claiming -------------------------------------------------------------------------------------------------


async def test_a_claim_is_won(server: Server) -> None:
    async with server.visit() as visit:
        run, mine = await visit.new_run(), new_id()
        claim = await visit.insist(lambda: visit.api.claim(run.id, transition_id=mine))
        assert claim.outcome is ClaimOutcome.WON
        assert claim.state is not None and claim.state.transition_id == mine
        assert await visit.state_of(run.id) is StateType.PENDING


async def test_a_claim_whose_answer_was_lost_is_won_again(server: Server) -> None:
    async with server.visit() as visit:
        run, mine = await visit.new_run(), new_id()
        for _ in range(3):
            claim = await visit.insist(lambda: visit.api.claim(run.id, transition_id=mine))
            assert claim.outcome is ClaimOutcome.WON


async def test_a_claim_is_lost_to_a_rival(server: Server) -> None:
    async with server.visit() as visit:
        run, rival = await visit.new_run(), new_id()
        await visit.insist(lambda: visit.api.claim(run.id, transition_id=rival))
        claim = await visit.insist(lambda: visit.api.claim(run.id, transition_id=new_id()))
        assert claim.outcome is ClaimOutcome.LOST
        assert claim.state is not None and claim.state.transition_id == rival
        assert claim.reason


async def test_exactly_one_of_many_claims_is_won(server: Server) -> None:
    async with server.visit() as visit:
        run = await visit.new_run()
        ids = [new_id() for _ in range(4)]

        async def claim(mine: str) -> ClaimOutcome:
            return (await visit.insist(lambda: visit.api.claim(run.id, transition_id=mine))).outcome

        outcomes = await asyncio.gather(*(claim(mine) for mine in ids))
        assert sorted(outcomes) == [ClaimOutcome.LOST] * 3 + [ClaimOutcome.WON]


@pytest.mark.parametrize("path", [("PENDING", "RUNNING"), ("PENDING", "CANCELLING"), ("CANCELLED",)])
async def test_a_claim_of_a_run_that_moved_on_is_lost(server: Server, path: tuple[str, ...]) -> None:
    async with server.visit() as visit:
        run = await visit.in_state(*path)
        claim = await visit.insist(lambda: visit.api.claim(run.id, transition_id=new_id()))
        assert claim.outcome is ClaimOutcome.LOST
        assert await visit.state_of(run.id) is StateType(path[-1])


async def test_a_claim_of_a_deleted_run_is_gone(server: Server) -> None:
    async with server.visit() as visit:
        claim = await visit.insist(lambda: visit.api.claim(NOBODY, transition_id=new_id()))
        assert claim.outcome is ClaimOutcome.GONE


@pytest.mark.parametrize(
    ("strategy", "then"),
    [("ENQUEUE", (StateType.SCHEDULED, "AwaitingConcurrencySlot")), ("CANCEL_NEW", (StateType.CANCELLED, "Cancelled"))],
)
async def test_a_claim_over_the_deployments_limit_is_lost_where_the_server_counts(
    server: Server, strategy: Any, then: tuple[StateType, str]
) -> None:
    server.skip_before("3.0.3", "the limit of a deployment has no strategy")
    async with server.visit() as visit:
        info = await visit.deploy(concurrency_limit=1, collision_strategy=strategy)
        first, second = await visit.new_run(info.id), await visit.new_run(info.id)
        claim = await visit.insist(lambda: visit.api.claim(first.id, transition_id=new_id()))
        assert claim.outcome is ClaimOutcome.WON and claim.state is not None
        lease_id = claim.state.lease_id
        claim = await visit.insist(lambda: visit.api.claim(second.id, transition_id=new_id()))
        if visit.major == 2:
            assert lease_id is None
            assert claim.outcome is ClaimOutcome.WON  # here the limit is runnerd's own affair
            return
        assert claim.outcome is ClaimOutcome.LOST and claim.state is not None
        assert (claim.state.type, claim.state.name) == then
        if server.is_before("3.7.0") and lease_id is None:
            return
        assert lease_id is not None and await visit.insist(lambda: visit.api.renew_lease(lease_id))
        assert not await visit.insist(lambda: visit.api.renew_lease(new_id()))
        await visit.propose(first.id, CANCELLED)
        if strategy == "ENQUEUE":
            claim = await visit.insist(lambda: visit.api.claim(second.id, transition_id=new_id()))
            assert claim.outcome is ClaimOutcome.WON


# --- reporting ------------------------------------------------------------------------------------------------

CRASHED = Verdict(type=StateType.CRASHED, message="killed by SIGSEGV")
TIMED_OUT = Verdict(type=StateType.FAILED, name="TimedOut", message="runtime_max 2h")
AGAIN = Verdict(type=StateType.SCHEDULED, name="AwaitingRetry", scheduled_time=datetime.now(UTC))


@pytest.mark.parametrize(
    ("path", "verdict"),
    [
        (PENDING, CANCELLED),
        (RUNNING, CANCELLED),
        (CANCELLING, CANCELLED),
        ((*RUNNING, "CRASHED"), CANCELLED),
        ((*RUNNING, "PAUSED"), CANCELLED),
        ((*RUNNING, "SCHEDULED"), CANCELLED),
        ((*RUNNING, "COMPLETED"), CANCELLED),  # the server does not guard a success: hence read, decide, tell
        (PENDING, WISH),
        (RUNNING, WISH),
        (PENDING, CRASHED),
        (RUNNING, CRASHED),
        ((*RUNNING, "SCHEDULED"), CRASHED),  # nor a retry
        (RUNNING, TIMED_OUT),
        ((*RUNNING, "CRASHED"), TIMED_OUT),
        (PENDING, AGAIN),
        (RUNNING, AGAIN),
        ((*RUNNING, "CRASHED"), AGAIN),
        ((*RUNNING, "COMPLETED"), AGAIN),
    ],
    ids=lambda value: value.type.value if isinstance(value, Verdict) else value[-1],
)
async def test_a_verdict_is_accepted(server: Server, path: tuple[str, ...], verdict: Verdict) -> None:
    async with server.visit() as visit:
        run = await visit.in_state(*path)
        answer = await visit.propose(run.id, verdict)
        assert answer.accepted and not answer.gone
        after = await visit.insist(lambda: visit.api.read_run(run.id))
        assert after is not None
        told = (after.state.type, after.state.name, after.state.message)
        assert told == (verdict.type, verdict.name or verdict.type.value.capitalize(), verdict.message)


@pytest.mark.parametrize(
    ("path", "verdict"),
    [
        (CANCELLING, CRASHED),
        (CANCELLING, AGAIN),
        ((*RUNNING, "COMPLETED"), CRASHED),
        ((*RUNNING, "FAILED"), CRASHED),
        ((*RUNNING, "CANCELLED"), CRASHED),
        ((*RUNNING, "CRASHED"), CRASHED),
        ((*RUNNING, "COMPLETED"), WISH),  # so a cancel may be announced without a look at what has become of the run
        ((*RUNNING, "FAILED"), WISH),
        ((*RUNNING, "CRASHED"), WISH),
        ((*RUNNING, "CANCELLED"), WISH),
    ],
    ids=lambda value: value.type.value if isinstance(value, Verdict) else value[-1],
)
async def test_a_verdict_is_refused(server: Server, path: tuple[str, ...], verdict: Verdict) -> None:
    async with server.visit() as visit:
        run = await visit.in_state(*path)
        answer = await visit.propose(run.id, verdict)
        assert not answer.accepted and not answer.gone and answer.reason
        assert answer.state is not None and answer.state.type is StateType(path[-1])
        assert await visit.state_of(run.id) is StateType(path[-1])


async def test_a_verdict_told_twice_is_accepted_twice_and_recorded_once(server: Server) -> None:
    async with server.visit() as visit:
        run, mine = await visit.in_state(*RUNNING), new_id()
        first = await visit.propose(run.id, CRASHED, mine)
        before = (await visit.raw("GET", f"/flow_runs/{run.id}")).json()["state"]["id"]
        second = await visit.propose(run.id, CRASHED, mine)
        assert first.accepted and second.accepted
        assert (await visit.raw("GET", f"/flow_runs/{run.id}")).json()["state"]["id"] == before


async def test_a_verdict_on_a_deleted_run_is_gone(server: Server) -> None:
    async with server.visit() as visit:
        answer = await visit.propose(NOBODY, CRASHED)
        assert answer.gone and not answer.accepted


async def test_cancelling_a_scheduled_run_that_nobody_runs_cancels_it_at_once(server: Server) -> None:
    async with server.visit() as visit:
        run = await visit.new_run()
        answer = await visit.propose(run.id, Verdict(type=StateType.CANCELLING))
        assert not answer.accepted
        assert await visit.state_of(run.id) is StateType.CANCELLED


async def test_a_rescheduled_run_is_offered_again(server: Server) -> None:
    async with server.visit() as visit:
        info = await visit.deploy()
        run = await visit.new_run(info.id)
        await visit.insist(lambda: visit.api.claim(run.id, transition_id=new_id()))
        assert (await visit.propose(run.id, AGAIN)).accepted
        offered = await due(visit, info.id)
        assert [(each.id, each.state.name) for each in offered] == [(run.id, "AwaitingRetry")]


async def test_running_before_its_time_has_to_wait(server: Server) -> None:
    async with server.visit() as visit:
        info = await visit.deploy()
        state = {"type": "SCHEDULED", "state_details": {"scheduled_time": text(5)}}
        run = (await visit.raw("POST", f"/deployments/{info.id}/create_flow_run", {"state": state})).json()
        await visit.insist(lambda: visit.api.claim(run["id"], transition_id=new_id()))
        if server.fake is not None:
            server.fake.runs[run["id"]]["expected_start_time"] = text(5)
        answer = await visit.propose(run["id"], Verdict(type=StateType.RUNNING))
        assert not answer.accepted and answer.wait_s is not None and 200 < answer.wait_s <= 300
