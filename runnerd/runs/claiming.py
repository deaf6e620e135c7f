"""Claims one run: reads its state first, and finds out whether this host has it afterwards.

Invariants: a run that is not waiting to be claimed is left alone, because the server would accept the claim; a claim of
ours has our transition id, by which it is recognised even if its answer was lost and the run's state changed since.
"""

from __future__ import annotations

from typing import Protocol

from runnerd.core.machine import Intent, RunRecord
from runnerd.core.prefect import ApiState, FlowRun, StateType, Verdict
from runnerd.prefect_api.answers import Answer, Claim, ClaimOutcome

AWAITS_ITS_PROCESS = "its next attempt is a retry inside the process that failed"


class FlowRunApi(Protocol):
    """Makes the requests of one run; PrefectApi has all of them."""

    async def claim(self, run_id: str, *, transition_id: str) -> Claim: ...
    async def read_run(self, run_id: str) -> FlowRun | None: ...
    async def history(self, run_id: str) -> list[ApiState]: ...
    async def propose(self, run_id: str, verdict: Verdict, *, transition_id: str) -> Answer: ...
    async def renew_lease(self, lease_id: str) -> bool: ...
    async def release_retry(self, run: FlowRun) -> None: ...


async def claim_if_free(api: FlowRunApi, record: RunRecord, *, even_if_ended: bool) -> Claim:
    """Propose PENDING, unless the run is not waiting to be claimed any more.

    An offer ages while it waits for a slot, a connection or a new daemon. Meanwhile another host may have run it, and
    the server would accept our claim again: it rejects a claim of a claimed run, but not of an ended one.
    `even_if_ended`: the run was requested by its id, so it is claimed without reading its state. A claim that is won
    with the state CANCELLING is of a run that has to be ended and not started.
    """
    found = None if even_if_ended else await api.read_run(record.id)
    state = found.state if found is not None else None
    if state is not None and state.transition_id != record.transition_id:
        if await _cancelled_since(api, record, state):
            return Claim(outcome=ClaimOutcome.WON, state=state)
        if state.type is not StateType.SCHEDULED:
            return Claim(outcome=ClaimOutcome.LOST, state=state, reason=f"the run is {state.name} already")
        if state.needs_process:
            return Claim(outcome=ClaimOutcome.LOST, state=state, reason=AWAITS_ITS_PROCESS)
        if record.intent is Intent.EVICT:  # stop.then applies only to runs that this host has claimed
            return Claim(outcome=ClaimOutcome.LOST, state=state, reason="the host was stopped before the claim")
    claim = await api.claim(record.id, transition_id=record.transition_id)
    # The run may also be cancelled between the reading that found it claimed by us and the repeated claim.
    if claim.outcome is ClaimOutcome.LOST and await _cancelled_since(api, record, claim.state):
        return Claim(outcome=ClaimOutcome.WON, state=claim.state)
    return claim


async def _cancelled_since(api: FlowRunApi, record: RunRecord, state: ApiState | None) -> bool:
    """Return whether we won the claim, its answer was lost, and the run was cancelled since: only we can end it."""
    if state is None or state.type is not StateType.CANCELLING:
        return False
    history = await api.history(record.id)
    claims = [state for state in history if state.type is StateType.PENDING]
    return bool(claims) and claims[-1].transition_id == record.transition_id
