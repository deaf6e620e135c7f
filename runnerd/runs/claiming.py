"""Claims one run: reads its state first, and finds out whether this host has it afterwards.

Invariants: a run that is not waiting to be claimed is left alone, because the server would accept the claim; a claim of
ours has our transition id, by which it is recognised even if its answer was lost and the run's state changed since.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from runnerd.core.errors import ApiRejected
from runnerd.core.guests import Guest
from runnerd.core.machine import Intent, RunRecord
from runnerd.core.prefect import ApiState, FlowRun, StateType, Verdict, due
from runnerd.deployments.registry import Entry
from runnerd.prefect_api.answers import Answer, Claim, ClaimOutcome

UNSTARTED = "cancelled before it started"  # in the message to the API, and the words of the run's end
AWAITS_ITS_PROCESS = "its next attempt is a retry inside the process that failed"


class FlowRunApi(Protocol):
    """Makes the requests of one run; PrefectApi has all of them."""

    async def claim(self, run_id: str, *, transition_id: str) -> Claim: ...
    async def read_run(self, run_id: str) -> FlowRun | None: ...
    async def history(self, run_id: str) -> list[ApiState]: ...
    async def propose(self, run_id: str, verdict: Verdict, *, transition_id: str) -> Answer: ...
    async def renew_lease(self, lease_id: str) -> bool: ...
    async def release_retry(self, run: FlowRun) -> None: ...


class StateApi(Protocol):
    """Reads and proposes states of flow runs; PrefectApi does."""

    async def read_run(self, run_id: str) -> FlowRun | None: ...
    async def propose(self, run_id: str, verdict: Verdict, *, transition_id: str) -> Answer: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimTerms:
    """Says how a run is claimed.

    `even_if_ended`: the run was requested by its id. `intent` and `words`: it is to be ended at once, and why.
    `guest`: it is started by the host's own settings.
    """

    even_if_ended: bool = False
    intent: Intent | None = None
    words: str | None = None
    guest: Guest | None = None


def new_record(
    offer: FlowRun, entry: Entry | None, *, before: RunRecord | None, at: datetime, guest: Guest | None = None
) -> RunRecord:
    """Make the record of a claim. `entry`: its deployment, if this host has it; `before`: the last claim made here."""
    due_at = due(offer)
    deployment, flow = (entry.deployment.name, entry.flow) if entry else ("?", None)
    if guest is not None:
        deployment, flow, entry = guest.deployment, guest.flow, None
    command = entry.deployment.command if entry and offer.pool is None else None
    return RunRecord(
        id=offer.id,
        name=offer.name,
        deployment_id=offer.deployment_id,
        deployment=deployment,
        flow=flow or "?",
        command=command.rules if command is not None else None,
        transition_id=str(uuid.uuid4()),
        created_at=at,
        run_created_at=offer.created,
        due_at=due_at if due_at is not None and due_at > at else None,
        tags=offer.tags,
        attempt=before.attempt + 1 if before else 1,
        user=entry.deployment.run.user if entry and offer.pool is None else None,
        pool=offer.pool,
        queue=offer.queue,
        output=before.output if before else None,
        guest=guest,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawal:
    """Describes how the cancellation of an unclaimed run ended.

    `state` is the run's state afterwards, None when the run is not in the API; `cancelled`: this call has cancelled the
    run; `refusal`: why the API did not accept that.
    """

    state: ApiState | None = None
    cancelled: bool = False
    refusal: str | None = None


async def cancel_unclaimed(api: StateApi, run_id: str, *, message: str) -> Withdrawal:
    """Cancel a run in the API unless it is not scheduled any more. Raises ApiAway, ApiDenied, ApiRejected."""
    found = await api.read_run(run_id)
    if found is None or found.state.type is not StateType.SCHEDULED:
        return Withdrawal(state=found.state if found is not None else None)
    verdict = Verdict(type=StateType.CANCELLED, name="Cancelled", message=message)
    answer = await api.propose(run_id, verdict, transition_id=str(uuid.uuid4()))
    if answer.gone:
        return Withdrawal()
    if not answer.accepted:
        return Withdrawal(state=answer.state, refusal=answer.reason or "the API does not accept it")
    return Withdrawal(state=ApiState(type=StateType.CANCELLED, name="Cancelled", message=message), cancelled=True)


async def claim_if_free(api: FlowRunApi, record: RunRecord, *, even_if_ended: bool) -> Claim:
    """Propose PENDING, unless the run is not waiting to be claimed any more.

    An offer ages while it waits for a slot, a connection or a new daemon. Meanwhile another host may have run it, and
    the server would accept our claim again: it rejects a claim of a claimed run, but not of an ended one.
    `even_if_ended`: the run was requested by its id, so it is claimed without reading its state. A claim that is won
    with the state CANCELLING is of a run that has to be ended and not started. A run that is to be cancelled is not
    claimed but cancelled: its claim is lost with the state CANCELLED.
    """
    found = None if even_if_ended else await api.read_run(record.id)
    known = await _claim_by_reading(api, record, found.state) if found is not None else None
    return known or await _propose_claim(api, record)


async def _claim_by_reading(api: FlowRunApi, record: RunRecord, state: ApiState) -> Claim | None:
    """Return how the claim ends if the run's state decides that; None when PENDING is to be proposed."""
    if state.transition_id == record.transition_id:
        ours = state.type is StateType.PENDING  # its answer was lost, or the daemon that proposed it has ended
        return Claim(outcome=ClaimOutcome.WON, state=state) if ours else None
    if await _cancelled_since(api, record, state):
        return Claim(outcome=ClaimOutcome.WON, state=state)
    if state.type is not StateType.SCHEDULED:
        return Claim(outcome=ClaimOutcome.LOST, state=state, reason=f"the run is {state.name} already")
    if state.needs_process:
        return Claim(outcome=ClaimOutcome.LOST, state=state, reason=AWAITS_ITS_PROCESS)
    if record.intent is Intent.CANCEL:
        return await _cancel_instead(api, record)
    if record.intent is Intent.EVICT:  # stop.then applies only to runs that this host has claimed
        return Claim(outcome=ClaimOutcome.LOST, state=state, reason="the host was stopped before the claim")
    return None


async def _propose_claim(api: FlowRunApi, record: RunRecord) -> Claim:
    claim = await api.claim(record.id, transition_id=record.transition_id)
    if claim.outcome is not ClaimOutcome.LOST:
        return claim
    # A run whose state was not read may have been cancelled since its claim was won and the answer lost.
    if await _cancelled_since(api, record, claim.state):
        return Claim(outcome=ClaimOutcome.WON, state=claim.state)
    # Servers since 3.9.4 refuse that; older ones do for a run with a stored result.
    if claim.state is not None and claim.state.type is StateType.COMPLETED:
        return replace(claim, reason=f"the run is {claim.state.name}, and Prefect does not start it again")
    return claim


async def _cancel_instead(api: FlowRunApi, record: RunRecord) -> Claim:
    message = record.words or UNSTARTED
    end = await cancel_unclaimed(api, record.id, message=message)
    if end.refusal is not None:  # not a lost claim: the next offer would start the run
        raise ApiRejected(f"cannot cancel run {record.id}: {end.refusal}", status=200)
    reason = message if end.cancelled else f"the run is {end.state.name if end.state else 'gone'} already"
    return Claim(outcome=ClaimOutcome.LOST, state=end.state, reason=reason)


async def _cancelled_since(api: FlowRunApi, record: RunRecord, state: ApiState | None) -> bool:
    """Return whether we won the claim, its answer was lost, and the run was cancelled since: only we can end it."""
    if state is None or state.type is not StateType.CANCELLING:
        return False
    history = await api.history(record.id)
    claims = [state for state in history if state.type is StateType.PENDING]
    return bool(claims) and claims[-1].transition_id == record.transition_id
