"""Asking Prefect for one run: what is read before it is proposed, and whose it is afterwards.

Invariants: a run that is not waiting to be claimed is left alone, for the server would give it to us all the same; a
claim of ours is known by its transition id for ever, also when its answer was lost and the run has moved on since.
"""

from __future__ import annotations

from typing import Protocol

from runnerd.core.machine import Intent, RunRecord
from runnerd.core.prefect import ApiState, FlowRun, StateType
from runnerd.prefect_api.answers import Claim, ClaimOutcome

AWAITS_ITS_PROCESS = "its next attempt is a retry inside the process that failed"


class ClaimApi(Protocol):
    """What a claim asks of Prefect."""

    async def claim(self, run_id: str, *, transition_id: str) -> Claim: ...
    async def read_run(self, run_id: str) -> FlowRun | None: ...
    async def history(self, run_id: str) -> list[ApiState]: ...


async def claim_if_free(api: ClaimApi, record: RunRecord, *, at_any_cost: bool) -> Claim:
    """Propose PENDING, unless the run is not waiting to be claimed any more.

    An offer grows old while it waits for a slot, a connection or a new daemon. Meanwhile another host may have run
    it, and the server would let us have it again: it guards a claim against a rival's, not against an ended run.
    `at_any_cost`: somebody asked for this one by its id, so also one that has ended. A claim that is won with a state
    of CANCELLING is of a run that is to be ended and not started.
    """
    found = None if at_any_cost else await api.read_run(record.id)
    state = found.state if found is not None else None
    if state is not None and state.transition_id != record.transition_id:
        if await _cancelled_since(api, record, state):
            return Claim(outcome=ClaimOutcome.WON, state=state)
        if state.type is not StateType.SCHEDULED:
            return Claim(outcome=ClaimOutcome.LOST, state=state, reason=f"the run is {state.name} already")
        if state.needs_process:
            return Claim(outcome=ClaimOutcome.LOST, state=state, reason=AWAITS_ITS_PROCESS)
        if record.intent is Intent.EVICT:  # stop.then is for runs that were ours
            return Claim(outcome=ClaimOutcome.LOST, state=state, reason="the host was stopped before")
    claim = await api.claim(record.id, transition_id=record.transition_id)
    # It may also be cancelled between a look that found it ours and the claim's repetition.
    if claim.outcome is ClaimOutcome.LOST and await _cancelled_since(api, record, claim.state):
        return Claim(outcome=ClaimOutcome.WON, state=claim.state)
    return claim


async def _cancelled_since(api: ClaimApi, record: RunRecord, state: ApiState | None) -> bool:
    """Whether the server gave us the run, the answer was lost, and it is to be ended now. Nobody else would end it."""
    if state is None or state.type is not StateType.CANCELLING:
        return False
    history = await api.history(record.id)
    claims = [state for state in history if state.type is StateType.PENDING]
    return bool(claims) and claims[-1].transition_id == record.transition_id
