"""Sends Prefect what it wants to know of a pool's run besides its state: where the run runs, and its labels.

Invariant: nothing waits for this and nothing depends on it; notes are sent in order while the API answers, and those
that the API rejects are dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from runnerd.core.machine import Phase, RunRecord
from runnerd.core.place import Json
from runnerd.core.prefect import StateType
from runnerd.core.record_feed import RecordFeed
from runnerd.pools.outbox import Outbox
from runnerd.pools.table import PoolService, PoolTable
from runnerd.prefect_api.pools import PoolsApi


class RunNotes:
    """Sends the notes of every run that the feed announces. `worker_name` is this host's name among the workers."""

    def __init__(
        self,
        *,
        api: PoolsApi,
        table: PoolTable,
        worker_name: Callable[[], str],
        feed: RecordFeed,
        outbox: Outbox,
    ) -> None:
        self._api = api
        self._table = table
        self._worker_name = worker_name
        self._outbox = outbox
        feed.subscribe(self._note)

    def _note(self, record: RunRecord) -> None:
        if record.pool is not None and record.phase in (Phase.RUNNING, Phase.DONE):
            self._outbox.put("where runs run", f"where run {record.id} runs", partial(self._send, record))

    async def _send(self, record: RunRecord) -> None:
        if record.phase is Phase.DONE:
            # A run that awaits a retry and names an infrastructure would not be cancelled but stay CANCELLING for ever.
            if record.api_state is StateType.SCHEDULED:
                await self._api.note_infrastructure(record.id, None)
            return
        # Prefect 2's workers end a run whose infrastructure they take for their own, or that has none.
        pid = record.identity.pid if record.identity is not None else 0
        await self._api.note_infrastructure(record.id, f"runnerd@{self._worker_name()}:{pid}")
        await self._api.label_run(record.id, self._labels(record))

    def _labels(self, record: RunRecord) -> dict[str, Json]:
        served = self._table.get(record.pool)
        pool = served.pool if served is not None else None
        ours: dict[str, Json] = {"prefect.worker.name": self._worker_name(), "prefect.work-pool.name": record.pool}
        if pool is not None:
            ours["prefect.work-pool.id"] = pool.id
        if served is not None and served.service is PoolService.WORKER:
            ours["prefect.worker.type"] = "process"
        return {**record.labels, **ours}
