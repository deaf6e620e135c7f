"""Lists the runs that wait in work pools, in the order of delivery, with what those that are not delivered wait for.

Invariants: nothing here counts as a poll of a queue; a preview makes a few requests for a pool, more only where it has
more runs than one answer holds, and one for each queue with a concurrency limit whose runs it lists, up to a bound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from runnerd.control.backend.delivery_order import Occupied, arrange
from runnerd.control.backend.pool_documents import offer_document
from runnerd.control.backend.refusals import no_queue
from runnerd.control.contract import Refused
from runnerd.core.place import Json
from runnerd.core.prefect import FlowRun, WorkPool, WorkQueue
from runnerd.prefect_api.answers import ApiRefusal, Page
from runnerd.prefect_api.client import PrefectApi
from runnerd.prefect_api.reading import PAGE

LIMITS_CHECKED_MAX = 20  # concurrency limits of queues that one preview checks, by a request each


class Previews:
    """Builds the preview document."""

    def __init__(self, *, api: PrefectApi, now: Callable[[], datetime]) -> None:
        self._api = api
        self._now = now

    async def document(self, pools: Sequence[WorkPool], queue: str | None, *, hours: int) -> Json | Refused:
        """Return the preview of `pools` for the next `hours`, of the queue named `queue` only if one is given."""
        before = self._now() + timedelta(hours=hours)
        runs: list[tuple[FlowRun, str | None]] = []
        paused: list[str] = []
        unchecked: list[str] = []
        whole, spare = True, LIMITS_CHECKED_MAX
        for pool in pools:
            queues = [one for one in await self._api.pools.queues(pool.name) if queue in (None, one.name)]
            if queue is not None and not queues:
                return no_queue(pool.name, queue)
            found = await self._waiting(pool, queues, before) if queues else Page()
            limited = _limited(queues, found)
            occupied = await self._occupied(pool, limited[:spare]) if found else Occupied()
            runs += arrange(pool, queues, found, occupied)
            unchecked += [f"{pool.name}/{one.name}" for one in limited[spare:]]
            spare = max(0, spare - len(limited))
            paused += _paused(pool, queues)
            whole = whole and not found.full
        names, now = await self._names([run for run, _ in runs]), self._now()
        documents = [
            offer_document(run, deployment=names.get(run.deployment_id or ""), now=now, waiting=why)
            for run, why in runs
        ]
        more = {"paused_deployments": await self._paused_deployments(pools), "unchecked_limits": unchecked}
        return {"paused": paused, **more, "whole": whole, "runs": documents}

    async def _waiting(self, pool: WorkPool, queues: Sequence[WorkQueue], before: datetime) -> Page:
        """Read the first runs of `queues`, in the order of delivery where there are more than one answer holds."""
        waiting = self._api.pools.waiting
        plain = [one for one in queues if one.filter is None]
        if not plain:  # Prefect 2: the runs of a tag-based queue are in no pool
            return await waiting.first_runs(pool.name, queues, before=before) if len(queues) == 1 else Page()
        found = await waiting.first_runs(pool.name, plain, before=before)
        if not found.full or len(plain) == 1:
            return found
        runs: list[FlowRun] = []
        for one in sorted(plain, key=lambda queue: queue.priority):
            if len(runs) < PAGE:
                runs += await waiting.first_runs(pool.name, [one], before=before, limit=PAGE - len(runs))
        return Page(runs, full=True)

    async def _occupied(self, pool: WorkPool, limited: Sequence[WorkQueue]) -> Occupied:
        """Count what takes up slots of these queues, and of the pool if it has a limit."""
        waiting = self._api.pools.waiting
        counts = {one.name: await waiting.occupied(pool.name, [one]) for one in limited}
        if pool.concurrency_limit is None:
            return Occupied(queues=counts)
        return Occupied(pool=await waiting.occupied(pool.name), queues=counts)

    async def _paused_deployments(self, pools: Sequence[WorkPool]) -> list[str] | None:
        """Return the names of paused deployments; None where the server cannot list them."""
        if not pools:
            return []
        found = await self._api.pools.waiting.paused_deployments([pool.name for pool in pools])
        return None if isinstance(found, ApiRefusal) else [one.name for one in found]

    async def _names(self, runs: Sequence[FlowRun]) -> dict[str, str]:
        ids = list(dict.fromkeys(run.deployment_id for run in runs if run.deployment_id))
        return {one.id: one.name for one in await self._api.read_deployments(ids)}


def _limited(queues: Sequence[WorkQueue], runs: Sequence[FlowRun]) -> list[WorkQueue]:
    """Return the queues of these runs that have a concurrency limit, those that are served first at the front."""
    used = {run.queue for run in runs}
    found = [one for one in queues if one.name in used and one.concurrency_limit is not None]
    return sorted(found, key=lambda queue: queue.priority)


def _paused(pool: WorkPool, queues: Sequence[WorkQueue]) -> list[str]:
    if pool.is_paused:
        return [pool.name]
    return [f"{pool.name}/{queue.name}" for queue in queues if queue.is_paused]
