"""What Prefect is told of a pool's run besides its state: where it runs, and who runs it.

Invariant: nobody waits for this and nothing hangs on it: it is told while the API answers, in order, and what cannot be
told is let go of.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol

from runnerd.core.errors import ApiAway, ApiDenied, ApiRejected
from runnerd.core.machine import Phase, RunRecord
from runnerd.core.place import Json
from runnerd.core.prefect import StateType
from runnerd.core.record_feed import RecordFeed
from runnerd.pools.table import PoolTable, Service
from runnerd.system.ambient import Ambient

_AT_MOST = 1000  # of those that wait for the API


class NotesApi(Protocol):
    """What is asked of Prefect."""

    async def note_infrastructure(self, run_id: str, pid: str | None) -> None: ...
    async def label_run(self, run_id: str, labels: Mapping[str, Json]) -> None: ...


class PoolNotes:
    """`run` for ever. `worker` is this host's name among the workers."""

    def __init__(
        self,
        *,
        api: NotesApi,
        table: PoolTable,
        worker: Callable[[], str],
        feed: RecordFeed,
        ambient: Ambient,
    ) -> None:
        self._api = api
        self._table = table
        self._worker = worker
        self._backoff = ambient.backoff
        self._log = ambient.log
        self._waiting: deque[RunRecord] = deque(maxlen=_AT_MOST)
        self._some = asyncio.Event()
        feed.subscribe(self._note)

    def _note(self, record: RunRecord) -> None:
        if record.pool is not None and record.phase in (Phase.RUNNING, Phase.DONE):
            self._waiting.append(record)
            self._some.set()

    async def run(self) -> None:
        """Send for ever what was noted, in order."""
        backoff = self._backoff()
        while True:
            await self._some.wait()
            self._some.clear()
            while self._waiting:
                record = self._waiting[0]
                try:
                    await self._tell(record)
                    backoff.reset()
                except ApiRejected as error:
                    self._log.debug("cannot note where a run is", run=record.id, why=str(error))
                except (ApiAway, ApiDenied) as error:
                    await asyncio.sleep(backoff.next_s(error))
                    continue
                if self._waiting and self._waiting[0] is record:  # else it was let go of meanwhile: another is first
                    self._waiting.popleft()

    async def _tell(self, record: RunRecord) -> None:
        if record.phase is Phase.DONE:
            # A run that is to be started again and names a place is not cancelled but becomes Cancelling, for ever.
            if record.api_state is StateType.SCHEDULED:
                await self._api.note_infrastructure(record.id, None)
            return
        # Prefect 2's own workers on the pool end a run whose place they take for theirs, or that has none.
        pid = record.identity.pid if record.identity is not None else 0
        await self._api.note_infrastructure(record.id, f"runnerd@{self._worker()}:{pid}")
        await self._api.label_run(record.id, self._labels(record))

    def _labels(self, record: RunRecord) -> dict[str, Json]:
        served = self._table.get(record.pool)
        pool = served.pool if served is not None else None
        ours: dict[str, Json] = {"prefect.worker.name": self._worker(), "prefect.work-pool.name": record.pool}
        if pool is not None:
            ours["prefect.work-pool.id"] = pool.id
        if served is not None and served.service is Service.WORKER:
            ours["prefect.worker.type"] = "process"
        return {**record.labels, **ours}
