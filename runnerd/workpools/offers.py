"""What served pools have to do: asks each for its due runs.

Invariants: one pool costs one request a poll, and one more for each queue of the old kind; a pool that cannot be asked
hides no other; the order within a pool is the server's, by the priorities of its queues and then by time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Protocol

from runnerd.errors import ApiRejected
from runnerd.logs import Log
from runnerd.model import FlowRun
from runnerd.workpool import WorkQueue
from runnerd.workpools.table import PoolTable, Served


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


class PoolOffers:
    """`outdated` is called with the name of a pool that is another than it was: gone, or one of its queues."""

    def __init__(
        self,
        *,
        api: PoolRunsApi,
        table: PoolTable,
        now: Callable[[], datetime],
        outdated: Callable[[str], None],
        log: Log,
    ) -> None:
        self._api = api
        self._table = table
        self._now = now
        self._outdated = outdated
        self._log = log

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
        try:
            if asked:
                runs = await self._api.runs(served.name, queues=asked, before=before, after=after)
                if runs is None:
                    self._outdated(served.name)
                found += runs or []
            if only is None:
                found += await self._find_tagged(served, before)
        except ApiRejected as error:
            self._log.error("cannot ask a work pool for its runs", pool=served.name, why=str(error))
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
