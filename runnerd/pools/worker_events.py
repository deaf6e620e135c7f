"""Emits the events that Prefect's own worker and runner emit, so that automations on them fire (3.x only)."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime

from runnerd.core.machine import Intent, Phase, RunRecord
from runnerd.core.place import Json
from runnerd.core.prefect import PROCESS, StateType
from runnerd.core.record_feed import RecordFeed
from runnerd.pools.outbox import Outbox
from runnerd.pools.table import PoolTable
from runnerd.prefect_api.pools import PoolsApi

_NOT_IN_SLUG = re.compile(r"[^a-z0-9]+")


class WorkerEvents:
    """Emits `prefect.worker.*` for each pool and its runs, and `prefect.runner.*` for cancelled own runs."""

    def __init__(
        self,
        *,
        api: PoolsApi,
        table: PoolTable,
        worker_name: Callable[[], str],
        feed: RecordFeed,
        outbox: Outbox,
        now: Callable[[], datetime],
    ) -> None:
        self._api = api
        self._table = table
        self._worker_name = worker_name
        self._outbox = outbox
        self._now = now
        self._started: dict[str, dict[str, Json]] = {}  # by pool: the event
        feed.subscribe(self._note_run)

    def note_started(self, pool: str) -> None:
        """Emit that this host serves the pool."""
        started = self._started[pool] = self._event("prefect.worker.started", self._worker(), self._pool(pool))
        self._put(started)

    def take_stopped(self, pool: str) -> dict[str, Json] | None:
        """Make the event that this host does not serve the pool any more, for the caller to emit; None if it did not.

        A second call returns None.
        """
        started = self._started.pop(pool, None)
        if started is None:
            return None
        event = self._event("prefect.worker.stopped", self._worker(), started["related"])
        return {**event, "follows": started["id"]}

    def _note_run(self, record: RunRecord) -> None:
        if record.pool is None:
            cancelled = record.intent is Intent.CANCEL and record.api_state is StateType.CANCELLED
            if record.phase is Phase.DONE and cancelled:
                related = self._related(record)
                self._put(self._event("prefect.runner.cancelled-flow-run", self._resource("runner"), related))
        elif record.phase is Phase.RUNNING:
            event = self._event("prefect.worker.submitted-flow-run", self._worker(), self._related(record))
            self._put({**event, "id": _submission_id(record)})
        elif record.phase is Phase.DONE and record.started_at is not None:
            event = self._event("prefect.worker.executed-flow-run", self._worker(), self._related(record))
            self._put({**event, "follows": _submission_id(record)})

    def _put(self, event: Json) -> None:
        async def send() -> None:
            await self._api.emit_event(event)

        self._outbox.put("events", f"the event {event['event']}", send)

    def _event(self, name: str, resource: Json, related: list[Json]) -> dict[str, Json]:
        at = self._now().isoformat()
        return {
            "id": str(uuid.uuid4()),
            "occurred": at,
            "event": name,
            "resource": resource,
            "related": related,
            "payload": {},
        }

    def _resource(self, kind: str) -> dict[str, str]:
        name = self._worker_name()
        slug = _NOT_IN_SLUG.sub("-", name.lower()).strip("-")
        return {"prefect.resource.id": f"prefect.{kind}.{slug}", "prefect.resource.name": name}

    def _worker(self) -> dict[str, str]:
        return {**self._resource(f"worker.{PROCESS}"), "prefect.worker-type": PROCESS}

    def _pool(self, name: str | None) -> list[Json]:
        served = self._table.get(name)
        if served is None or served.pool is None:
            return []
        return [_related("work-pool", served.pool.id, name=served.pool.name)]

    def _related(self, record: RunRecord) -> list[Json]:
        run = _related("flow-run", record.id, name=record.name)
        if record.phase is Phase.DONE and record.exit is not None and record.identity is not None:
            status = record.exit.code if record.exit.signal is None else -record.exit.signal
            run["prefect.infrastructure.identifier"] = f"{self._worker_name()}:{record.identity.pid}"
            run["prefect.infrastructure.status-code"] = str(status)
        found = [run]
        if record.deployment_id is not None:
            found.append(_related("deployment", record.deployment_id, name=record.deployment))
        tags = [{"prefect.resource.id": f"prefect.tag.{tag}", "prefect.resource.role": "tag"} for tag in record.tags]
        return [*found, *self._pool(record.pool), *self._queue(record), *tags]

    def _queue(self, record: RunRecord) -> list[Json]:
        served = self._table.get(record.pool)
        queues: Mapping[str, str] = {queue.name: queue.id for queue in served.queues} if served is not None else {}
        queue_id = queues.get(record.queue or "")
        return [_related("work-queue", queue_id, name=record.queue or "")] if queue_id else []


def _related(kind: str, its_id: str, *, name: str) -> dict[str, str]:
    return {
        "prefect.resource.id": f"prefect.{kind}.{its_id}",
        "prefect.resource.role": kind,
        "prefect.resource.name": name,
    }


def _submission_id(record: RunRecord) -> str:
    """Return the id of this attempt's submitted event, the same after a restart of the daemon."""
    return str(uuid.uuid5(uuid.UUID(record.id), f"submitted {record.attempt}"))
