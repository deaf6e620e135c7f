"""What served pools have to do: asks each for its due runs.

Invariants: one pool costs one request a poll, and one more for each queue of the old kind; a pool that cannot be asked
hides no other; the order within a pool is the server's, by the priorities of its queues and then by time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

from runnerd.core.prefect import FlowRun, WorkQueue, due
from runnerd.pools.table import PoolTable, Served
from runnerd.prefect_api.reading import PAGE


class PoolRunsApi(Protocol):
    """What is asked of Prefect."""

    async def runs(
        self,
        pool: str,
        *,
        queues: Mapping[str, str],
        before: datetime,
        after: datetime | None = None,
        limit: int | None = None,
    ) -> list[FlowRun] | None: ...
    async def tagged_runs(
        self, queue_id: str, *, before: datetime, limit: int | None = None
    ) -> list[FlowRun] | None: ...


_MOMENT = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class _Ahead:
    """A queue to look through, from `after` on."""

    queue: WorkQueue
    after: datetime | None = None


class PoolOffers:
    """`outdated` is called with the name of a pool that is another than it was: gone, or one of its queues."""

    def __init__(
        self,
        *,
        api: PoolRunsApi,
        table: PoolTable,
        now: Callable[[], datetime],
        outdated: Callable[[str], None],
    ) -> None:
        self._api = api
        self._table = table
        self._now = now
        self._outdated = outdated
        self._ahead: dict[str, list[_Ahead]] = {}  # of each pool what is still to be looked through, in order

    def open(self) -> list[Served]:
        """The pools to ask."""
        return [served for served in self._table.entries() if served.open]

    def limited(self) -> set[str]:
        """Names of the pools whose runs the server counts."""
        return {served.name for served in self.open() if served.limited}

    async def find(
        self, served: Served, *, only: WorkQueue | None = None, after: datetime | None = None
    ) -> list[FlowRun]:
        """A page of its due runs; of one queue, or from `after` on, when that is said. Raises ApiAway, ApiDenied."""
        before = self._now() + timedelta(seconds=served.settings.prefetch_s)
        queues = served.queues if only is None else (only,)
        asked = {queue.id: queue.name for queue in queues}
        found: list[FlowRun] = []
        if asked:
            runs = await self._api.runs(served.name, queues=asked, before=before, after=after)
            if runs is None:
                self._outdated(served.name)
            found += runs or []
        if only is None:
            found += await self._find_tagged(served, before)
        return found

    def may_have_more(self, served: Served, found: Sequence[FlowRun]) -> bool:
        """Whether others may be behind a page; where the server counts runs, it tells of as many as may start."""
        return len(found) >= PAGE or (served.limited and bool(found))

    async def find_behind(self, served: Served) -> list[FlowRun] | None:
        """A page of what is behind the first, from where the last call ended; None after the last, then anew.

        Queue by queue and by time, which is the order within one queue only. Raises ApiAway, ApiDenied.
        """
        ahead = self._ahead.get(served.name)
        if ahead is None or not {one.queue.id for one in ahead} <= {queue.id for queue in served.queues}:
            ahead = self._ahead[served.name] = [_Ahead(queue) for queue in served.queues]
        if not ahead:
            del self._ahead[served.name]
            return None
        queue, after = ahead[0].queue, ahead[0].after
        found = await self.find(served, only=queue, after=after)
        last = due(found[-1]) if found else None
        if last is None or not self.may_have_more(served, found):
            ahead.pop(0)
        else:
            # A whole page of one moment, or of as many as may start, says nothing of what is behind it.
            stuck = served.limited or (after is not None and last <= after)
            ahead[0] = _Ahead(queue, last + _MOMENT if stuck else last)
        return found

    async def _find_tagged(self, served: Served, before: datetime) -> list[FlowRun]:
        """Queues of the old kind also take the runs of any deployment by tag, which no pool offers."""
        found: list[FlowRun] = []
        for queue in served.queues:
            if queue.filter is None:
                continue
            runs = await self._api.tagged_runs(queue.id, before=before)
            if runs is None:
                self._outdated(served.name)
            found += [replace(run, pool=served.name, queue=queue.name) for run in runs or []]
        return found
