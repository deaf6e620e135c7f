"""Schedules ended runs again, with the same ids, as `prefect flow-run retry` of newer versions does; on 2.20 too.

Invariants: only a run that has ended and that this host would be offered again is retried; the server's rules are asked
first, and overridden only where they keep a Completed run for its result, or a Cancelled one as 2.20 does.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from runnerd.control.backend.api_calls import ApiCaller
from runnerd.control.backend.documents import offered_document
from runnerd.control.backend.elsewhere import ENDED, RunsElsewhere
from runnerd.control.backend.refusals import NOT_SERVED
from runnerd.control.contract import Refused
from runnerd.core.place import Json
from runnerd.core.prefect import FlowRun, StateType, Verdict
from runnerd.deployments.registry import Registry
from runnerd.polling.poller import Poller
from runnerd.prefect_api.answers import Answer
from runnerd.prefect_api.client import PrefectApi
from runnerd.runs.supervisor import Supervisor

# States that a server may keep whatever is proposed: a result that is persisted, and on 2.20 each cancellation.
_KEPT = (StateType.COMPLETED, StateType.CANCELLED)
_NAMED_CODE = " --entrypoint FILE.py:FLOW"
MESSAGE = "Retried by runnerctl"  # as Prefect's own command says "Retried via CLI"


class Retries:
    """Retries single runs."""

    def __init__(
        self,
        *,
        api: PrefectApi,
        call_api: ApiCaller,
        elsewhere: RunsElsewhere,
        supervisor: Supervisor,
        poller: Poller,
        registry: Registry,
        now: Callable[[], datetime],
    ) -> None:
        self._api = api
        self._call_api = call_api
        self._elsewhere = elsewhere
        self._supervisor = supervisor
        self._poller = poller
        self._registry = registry
        self._now = now

    async def retry(self, run_id: str) -> Json | Refused:
        """Schedule the run again for now and return its document, with phase null until it is claimed."""
        found = await self._call_api(lambda: self._read(run_id), reads=True)
        if isinstance(found, Refused):
            return found
        if found is None:
            return Refused(status=404, detail=f"there is no flow run {run_id} in Prefect")
        cannot = f"cannot retry run {found.name} ({run_id})"
        if (cause := self._why_not(found)) is not None:
            return Refused(status=409, detail=f"{cannot}: {cause}")
        answer = await self._schedule(found)
        if isinstance(answer, Refused):
            return replace(answer, detail=f"{cannot}: {answer.detail}")
        if not answer.accepted:
            cause = "it does not exist any more" if answer.gone else f"Prefect refuses that: {answer.reason}"
            return Refused(status=404 if answer.gone else 409, detail=f"{cannot}: {cause}")
        return await self._offer(run_id)

    async def _read(self, run_id: str) -> FlowRun | None:
        """Read the run; one of an own deployment is not its pool's."""
        found = await self._api.pools.placed_run(run_id)
        if found is not None and self._registry.own(found.deployment_id) is not None:
            return replace(found, pool=None, queue=None)
        return found

    def _why_not(self, run: FlowRun) -> str | None:
        live = self._supervisor.run(run.id)
        if live is not None:
            return f"this host has not done with it: it is {live.record.phase.value}"
        if run.state.type not in ENDED:
            return f"the run is {run.state.name}; only one that is Completed, Failed, Crashed or Cancelled is retried"
        if run.deployment_id is None:
            return f"it has no deployment, so that no host would be offered it{_by_hand(run, _NAMED_CODE)}"
        if not self._poller.serves(run):
            return f"{NOT_SERVED}{_by_hand(run, '')}"
        return None

    async def _schedule(self, run: FlowRun) -> Answer | Refused:
        verdict = Verdict(type=StateType.SCHEDULED, name="Scheduled", message=MESSAGE, scheduled_time=self._now())
        transition_id = str(uuid.uuid4())  # so that a repeat after a lost answer makes no second state

        async def propose(*, force: bool) -> Answer:
            return await self._api.propose(run.id, verdict, transition_id=transition_id, force=force)

        async def schedule() -> Answer:
            if run.retries_in_process:  # reserved for the process that has ended
                await self._api.release_retry(run)
            answer = await propose(force=False)
            is_kept = not answer.accepted and run.state.type in _KEPT and not answer.gone
            return await propose(force=True) if is_kept else answer

        return await self._call_api(schedule)

    async def _offer(self, run_id: str) -> Json | Refused:
        """Put the run on offer as Prefect has it now, and return its document."""

        async def read() -> tuple[FlowRun, dict[str, Json]] | None:
            found = await self._read(run_id)
            return None if found is None else (found, await self._elsewhere.names(found))

        again = await self._call_api(read, reads=True)
        if isinstance(again, Refused):
            return replace(again, detail=f"the run is scheduled again; its new state cannot be read: {again.detail}")
        if again is None:
            return Refused(status=404, detail=f"flow run {run_id} does not exist any more")
        run, names = again
        self._poller.put_on_offer(run)
        return {**offered_document(run, self._registry.by_id(run.deployment_id)), **names}


def _by_hand(run: FlowRun, named: str) -> str:
    """Advise to execute the run, which takes a word where it is Completed and is not done where it is Cancelled."""
    if run.state.type is StateType.CANCELLED:
        return ""
    again = " --again" if run.state.type is StateType.COMPLETED else ""
    return f"; runnerctl execute {run.id}{named}{again} starts it here, by the host's own run:"
