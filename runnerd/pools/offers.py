"""Asks work pools for their due runs, page by page.

Invariants: the first page of a pool costs one request, and one more for each legacy queue of 2.x; the order of a page
is the server's, by the priorities of the pool's queues and then by time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from runnerd.config.in_force import ConfigInForce
from runnerd.core.pace import Pace
from runnerd.core.prefect import FlowRun, WorkQueue, due
from runnerd.pools.table import PoolTable, Served
from runnerd.prefect_api.answers import Page
from runnerd.prefect_api.pools import PoolsApi

_MOMENT = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class _Ahead:
    """A queue whose pages are still to be read, from due time `after` on; None: from its first run on."""

    queue: WorkQueue
    after: datetime | None = None


class PoolOffers:
    """Reads pages of the pools in the table. `outdated` is called with the name of a pool that has changed or gone."""

    def __init__(
        self,
        *,
        api: PoolsApi,
        table: PoolTable,
        config: ConfigInForce,
        pace: Pace,
        now: Callable[[], datetime],
        outdated: Callable[[str], None],
    ) -> None:
        self._api = api
        self._table = table
        self._settings = config.settings
        self._pace = pace
        self._now = now
        self._outdated = outdated
        self._ahead: dict[str, list[_Ahead]] = {}  # by pool: the queues that next_page has still to read, in order

    def open_pools(self) -> list[Served]:
        """Return the pools to ask."""
        return [served for served in self._table.entries() if served.open]

    def interval_s(self, served: Served) -> float:
        """Return the seconds between two polls for the pool's runs."""
        own = served.settings.poll_interval_s
        return self._settings().api.poll_interval_s if own is None else own

    def limited_pools(self) -> set[str]:
        """Return the names of the pools whose concurrency limits the API enforces when it lists runs."""
        return {served.name for served in self.open_pools() if served.limited}

    async def first_page(self, served: Served) -> Page:
        """Return the first page of the pool's due runs, over all queues served. Raises ApiError."""
        before = self._before(served)
        found = await self._list_runs(served, served.queues, before=before) if served.queues else Page()
        return Page([*found, *await self._list_tagged(served, before)], full=found.full)

    def may_have_more(self, served: Served, found: Page) -> bool:
        """Whether runs may be behind this page. A limited pool lists only as many runs as may start."""
        return found.full or (served.limited and bool(found))

    async def next_page(self, served: Served) -> list[FlowRun] | None:
        """Return the page after the one of the last call; None after the last page, and then the first again.

        Goes queue by queue and by time, so the order is the server's within a queue only. Raises ApiError.
        """
        ahead = self._ahead.get(served.name)
        if ahead is None or not {one.queue.id for one in ahead} <= {queue.id for queue in served.queues}:
            ahead = self._ahead[served.name] = [_Ahead(queue) for queue in served.queues]
        if not ahead:
            del self._ahead[served.name]
            return None
        queue, after = ahead[0].queue, ahead[0].after
        found = await self._list_runs(served, (queue,), before=self._before(served), after=after)
        last = due(found[-1]) if found else None
        if last is None or not self.may_have_more(served, found):
            ahead.pop(0)
        else:
            # A limited page, or a whole page of runs due at one moment, would come back: go on a moment later.
            stuck = served.limited or (after is not None and last <= after)
            ahead[0] = _Ahead(queue, last + _MOMENT if stuck else last)
        return found

    def _before(self, served: Served) -> datetime:
        """Return until when to list: a poll further than prefetch, so that a run is known when its start is allowed."""
        ahead_s = served.settings.prefetch_s + self._pace.ahead_s(self.interval_s(served))
        return self._now() + timedelta(seconds=ahead_s)

    async def _list_runs(
        self, served: Served, queues: Sequence[WorkQueue], *, before: datetime, after: datetime | None = None
    ) -> Page:
        names = {queue.id: queue.name for queue in queues}
        runs = await self._api.runs(served.name, queues=names, before=before, after=after)
        if runs is None:
            self._outdated(served.name)
        return Page() if runs is None else runs

    async def _list_tagged(self, served: Served, before: datetime) -> list[FlowRun]:
        """Return what legacy queues of 2.x pick by tag: runs of any deployment, which no pool lists."""
        found: list[FlowRun] = []
        for queue in served.queues:
            if queue.filter is None:
                continue
            runs = await self._api.tagged_runs(queue.id, before=before)
            if runs is None:
                self._outdated(served.name)
            found += [replace(run, pool=served.name, queue=queue.name) for run in runs or []]
        return found
