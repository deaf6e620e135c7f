"""Lists the runs that work pools would deliver, in the order of delivery.

The server is asked as a worker asks it: its answer takes pauses and concurrency limits into account, and it marks the
queue as polled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from runnerd.control.backend.pool_documents import offer_document
from runnerd.control.backend.refusals import no_queue
from runnerd.control.contract import Refused
from runnerd.core.place import Json
from runnerd.core.prefect import FlowRun, WorkPool, WorkQueue
from runnerd.prefect_api.answers import Page
from runnerd.prefect_api.client import PrefectApi
from runnerd.prefect_api.reading import PAGE


class Previews:
    """Builds the preview document."""

    def __init__(self, *, api: PrefectApi, now: Callable[[], datetime]) -> None:
        self._api = api
        self._now = now

    async def document(self, pools: Sequence[WorkPool], queue: str | None, *, hours: int) -> Json | Refused:
        """Return the preview of `pools` for the next `hours`, of the queue named `queue` only if one is given."""
        before = self._now() + timedelta(hours=hours)
        runs: list[FlowRun] = []
        paused: list[str] = []
        whole = True
        for pool in pools:
            queues = [one for one in await self._api.pools.queues(pool.name) if queue in (None, one.name)]
            if queue is not None and not queues:
                return no_queue(pool.name, queue)
            offers = await self._offers(pool, queues, before, one=queue is not None)
            runs += offers
            paused += _paused(pool, queues)
            whole = whole and not offers.full
        names, now = await self._names(runs), self._now()
        documents = [offer_document(run, deployment=names.get(run.deployment_id or ""), now=now) for run in runs]
        return {"paused": paused, "whole": whole, "runs": documents}

    async def _offers(self, pool: WorkPool, queues: Sequence[WorkQueue], before: datetime, *, one: bool) -> Page:
        """Read the runs of `queues`; none for a pool or queue that was deleted since its name was read."""
        if one and queues[0].filter is not None:  # Prefect 2: the runs of a tag-based queue are in no pool
            found = await self._api.pools.tagged_runs(queues[0].id, before=before, limit=PAGE)
            if found is None:
                return Page()
            return Page((replace(run, pool=pool.name, queue=queues[0].name) for run in found), full=found.full)
        names = {queue.id: queue.name for queue in queues}
        found = await self._api.pools.runs(pool.name, queues=names, before=before, limit=PAGE)
        return Page() if found is None else found

    async def _names(self, runs: Sequence[FlowRun]) -> dict[str, str]:
        ids = list(dict.fromkeys(run.deployment_id for run in runs if run.deployment_id))
        return {one.id: one.name for one in await self._api.read_deployments(ids)}


def _paused(pool: WorkPool, queues: Sequence[WorkQueue]) -> list[str]:
    if pool.is_paused:
        return [pool.name]
    return [f"{pool.name}/{queue.name}" for queue in queues if queue.is_paused]
