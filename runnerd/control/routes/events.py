"""Streams the documents of runs as they change, to a reader that may be slow.

Invariants: `put` never waits. A reader that keeps up gets every document; for a slower reader, only the last document
of each run is queued. At most BACKLOG documents are queued; when more runs than that have changed, the stream ends and
its reader has to request it again.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress

from runnerd.control.contract import Host
from runnerd.control.http.exchange import Request, StreamReply
from runnerd.control.routes.resolve import find_run
from runnerd.core.place import Json

BACKLOG = 1024
DONE = "done"


class EventRoutes:
    """Handles /v1/events."""

    def __init__(self, *, host: Host) -> None:
        self._host = host

    async def stream_events(self, request: Request) -> StreamReply:
        ref = request.query.get("run")
        run_id = self._run_id(ref) if ref else None
        blocks = follow_runs(self._host, run_id)
        return StreamReply(blocks=blocks, content_type="application/x-ndjson", live=True)

    def _run_id(self, ref: str) -> str:
        """Return the id of the run that `ref` means; a full id needs no run yet, which may have just been created."""
        if not self._host.runs.find(ref):
            with suppress(ValueError):
                return str(uuid.UUID(ref))
        run_id: str = find_run(self._host, ref)["id"]
        return run_id


class Feed:
    """The queue of documents of one reader: those that `wanted` accepts."""

    def __init__(self, wanted: Callable[[Json], bool]) -> None:
        self._wanted = wanted
        self._waiting: deque[Json] = deque()
        self._news = asyncio.Event()
        self._overrun = False

    def put(self, document: Json) -> None:
        """Queue `document` if it is wanted."""
        if self._overrun or not self._wanted(document):
            return
        self._waiting.append(document)
        if len(self._waiting) > BACKLOG:
            self._keep_last_of_each_run()
        self._news.set()

    async def get(self) -> Json | None:
        """Wait for the next document; None when the queue has overflowed."""
        while not self._waiting and not self._overrun:
            self._news.clear()
            await self._news.wait()
        return None if self._overrun else self._waiting.popleft()

    def _keep_last_of_each_run(self) -> None:
        last = {document["id"]: document for document in self._waiting}
        self._waiting = deque(last.values())
        if len(last) > BACKLOG:
            self._waiting.clear()
            self._overrun = True


async def follow_runs(host: Host, run_id: str | None) -> AsyncGenerator[bytes, None]:
    """Yield, as NDJSON, the documents of all live runs and then each change; with `run_id` of that run, until done."""
    feed = Feed(lambda document: run_id is None or document["id"] == run_id)
    await host.runs.measure()
    unsubscribe = host.runs.subscribe(feed.put)  # before the runs are listed, so that no change in between is missed
    try:
        document: Json | None
        for document in _current_documents(host, run_id):
            yield line(document)
            if run_id is not None and document["phase"] == DONE:
                return
        while (document := await feed.get()) is not None:
            yield line(document)
            if run_id is not None and document["phase"] == DONE:
                return
    finally:
        unsubscribe()


def line(document: Json) -> bytes:
    """Return one line of NDJSON."""
    return json.dumps(document, allow_nan=False).encode() + b"\n"


def _current_documents(host: Host, run_id: str | None) -> list[Json]:
    if run_id is None:
        return host.runs.listing(history=False)
    document = host.runs.document(run_id)
    return [] if document is None else [document]
