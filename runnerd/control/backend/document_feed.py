"""Publishes a run's document whenever the document changes: with each new record, and when a held run is due."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

from runnerd.control.backend.documents import run_document
from runnerd.core.machine import RunRecord
from runnerd.core.place import Json
from runnerd.core.record_feed import RecordFeed

_AT_LEAST_S = 0.01  # the event loop may wake just before the time


def subscribe_documents(
    feed: RecordFeed, changed: Callable[[Json], None], *, now: Callable[[], datetime]
) -> Callable[[], None]:
    """Call `changed` with each new document of a run; return a function that ends the subscription.

    The flow of a held run begins without a new record: when the run is due, its document is published again.
    """
    waits: dict[str, asyncio.TimerHandle] = {}  # by run id

    def publish(record: RunRecord) -> None:
        forget(record.id)
        time = now()
        changed(run_document(record, now=time))
        if record.is_held(time) and record.due_at is not None:
            seconds = max(_AT_LEAST_S, (record.due_at - time).total_seconds())
            waits[record.id] = asyncio.get_running_loop().call_later(seconds, publish, record)

    def forget(run_id: str) -> None:
        if (wait := waits.pop(run_id, None)) is not None:
            wait.cancel()

    end = feed.subscribe(publish)

    def unsubscribe() -> None:
        end()
        for run_id in list(waits):
            forget(run_id)

    return unsubscribe
