"""Reads from the API runs that this host does not have, and says what is known of why they wait.

Invariant: a run that is read here is put on offer nowhere: whether this host gets it is decided by the polls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from runnerd.control.backend.api_calls import ApiCaller
from runnerd.control.backend.documents import offered_document
from runnerd.control.backend.refusals import NOT_SERVED
from runnerd.control.backend.waiting import NO_SLOT, NO_SLOT_WORDS
from runnerd.control.contract import Refused, RunElsewhere
from runnerd.core.exit_words import time_text
from runnerd.core.place import Json
from runnerd.core.prefect import FlowRun, StateType, WorkPool, WorkQueue, due
from runnerd.deployments.registry import Registry
from runnerd.polling.poller import Poller
from runnerd.pools.table import PoolService, PoolTable, Served
from runnerd.prefect_api.client import PrefectApi
from runnerd.runs.claiming import AWAITS_ITS_PROCESS

READ_S = 30.0  # for all runs of one request, well below the client's limit
ENDED = (StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED)


class RunsElsewhere:
    """Reads runs that this host does not have."""

    def __init__(
        self,
        *,
        api: PrefectApi,
        call_api: ApiCaller,
        registry: Registry,
        pools: PoolTable,
        poller: Poller,
        now: Callable[[], datetime],
    ) -> None:
        self._api = api
        self._call_api = call_api
        self._registry = registry
        self._pools = pools
        self._poller = poller
        self._now = now

    async def read(self, run_ids: Sequence[str]) -> dict[str, RunElsewhere] | Refused:
        """Read those of these runs that Prefect has, within READ_S; Refused when the API does not answer."""
        found = await self._call_api(lambda: self._read_all(run_ids), reads=True, limit_s=READ_S)
        if not isinstance(found, Refused):
            return found
        named = f"run {run_ids[0]}" if len(run_ids) == 1 else f"{len(run_ids)} of these runs"
        return replace(
            found, detail=f"this host does not have {named}, and cannot read from Prefect what it is: {found.detail}"
        )

    async def _read_all(self, run_ids: Sequence[str]) -> dict[str, RunElsewhere]:
        found: dict[str, RunElsewhere] = {}
        for run_id in run_ids:
            run = await self._api.pools.placed_run(run_id)
            if run is not None:
                found[run_id] = await self._describe(run)
        return found

    async def _describe(self, run: FlowRun) -> RunElsewhere:
        if self._registry.own(run.deployment_id) is not None:
            run = replace(run, pool=None, queue=None)
        entry = self._registry.by_id(run.deployment_id)
        document = offered_document(run, entry, waiting=await self.why_waiting(run))
        if entry is None:
            document |= await self.names(run)
        return RunElsewhere(document={**document, "here": False}, run=run, kept=self._why_kept(run))

    async def names(self, run: FlowRun) -> dict[str, Json]:
        """Read the names of the run's deployment and flow, as fields of its document."""
        named = await self._api.read_deployments([run.deployment_id]) if run.deployment_id else []
        return {"deployment": named[0].name if named else None, "flow": await self._api.read_flow(run.flow_id)}

    def _why_kept(self, run: FlowRun) -> str | None:
        """Say why this host does not cancel the run; None when it does."""
        state, remedy = run.state, f"prefect flow-run cancel {run.id} cancels it"
        if state.type in ENDED:
            return f"the run is {state.name} already"
        if self.of_prefect_worker(run):
            return f"a Prefect worker of this host takes the runs of its work pool; {remedy}"
        if not self._poller.serves(run):
            return f"{NOT_SERVED}; {remedy}"
        if state.type is not StateType.SCHEDULED or state.needs_process:
            return f"the run is {state.name}, and not on this host; {remedy}"
        return None

    async def why_waiting(self, run: FlowRun) -> str | None:
        """Say what a scheduled run waits for, as far as that is known; None for a run in another state."""
        if run.state.type is not StateType.SCHEDULED:
            return None
        if run.state.needs_process:
            return AWAITS_ITS_PROCESS
        if run.pool is not None:
            pool = await self._api.pools.read_pool(run.pool)
            queue = await self._api.pools.read_queue(run.pool, run.queue) if pool and run.queue else None
            held = describe_hold(run.pool, pool, queue, self._pools.get(run.pool))
        elif self._registry.own(run.deployment_id) is None:
            held = "its deployment is not served here" if run.deployment_id else "it has no deployment and no work pool"
        else:
            held = None
        return held or self._why_unlisted(run)

    def _why_unlisted(self, run: FlowRun) -> str:
        """Say why a run that nothing known holds up is not on offer."""
        if run.state.name == NO_SLOT:
            return NO_SLOT_WORDS
        at = due(run)
        if at is not None and at > self._now():
            return f"it is due at {time_text(at)}"
        if self.of_prefect_worker(run):
            return f"a Prefect worker of this host takes the runs of work pool {run.pool}"
        served = self._pools.get(run.pool)
        limited = served is not None and served.limited
        return "the next poll lists it" + (", unless a concurrency limit is reached" if limited else "")

    def of_prefect_worker(self, run: FlowRun) -> bool:
        """Whether a Prefect worker of this host takes such a run."""
        served = self._pools.get(run.pool)
        return served is not None and served.service is PoolService.OTHER


def describe_hold(name: str, pool: WorkPool | None, queue: WorkQueue | None, served: Served | None) -> str | None:
    """Say what keeps runs of this pool and queue from this host, as the API has them now; None when nothing does."""
    if pool is None:
        return f"there is no work pool {name} any more"
    reasons = []
    for what, its in ((f"work pool {name}", pool), (f"work queue {name}/{queue.name if queue else ''}", queue)):
        if its is not None and its.is_paused:
            reasons.append(f"{what} is paused")
        elif its is not None and its.concurrency_limit == 0:
            reasons.append(f"the concurrency limit of {what} is 0")
    if served is None:
        reasons.append(f"work pool {name} is not served here")
    elif served.problem is not None:
        reasons.append(f"work pool {name} cannot be served here: {served.problem}")
    elif queue is not None and served.pool is not None and queue.id not in {one.id for one in served.queues}:
        reasons.append(f"work queue {name}/{queue.name} is not served here")
    return "; ".join(reasons) or None
