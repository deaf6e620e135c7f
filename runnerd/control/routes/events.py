"""Run documents as they change, for a reader that may be slow.

Invariants: `put` never waits; a reader that keeps up sees every document; one that does not still sees the last
document of every run; at most BACKLOG documents wait, and when even the last ones do not fit, the feed ends and its
reader has to ask again.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator, Callable

from runnerd.control.contract import Host
from runnerd.core.place import Json

BACKLOG = 1024
DONE = "done"


class Feed:
    """The documents one reader has yet to see, of the runs that `wanted` accepts."""

    def __init__(self, wanted: Callable[[Json], bool]) -> None:
        self._wanted = wanted
        self._waiting: deque[Json] = deque()
        self._news = asyncio.Event()
        self._overrun = False

    def put(self, document: Json) -> None:
        if self._overrun or not self._wanted(document):
            return
        self._waiting.append(document)
        if len(self._waiting) > BACKLOG:
            self._keep_last_of_each_run()
        self._news.set()

    async def get(self) -> Json | None:
        """The next document; None when the reader fell too far behind."""
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
    """NDJSON: the current state of what matches, then each change. Of one run: until it is done."""
    feed = Feed(lambda document: run_id is None or document["id"] == run_id)
    unsubscribe = host.runs.subscribe(feed.put)  # before the first look, so that nothing falls in between
    try:
        document: Json | None
        for document in _now(host, run_id):
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
    return json.dumps(document, allow_nan=False).encode() + b"\n"


def _now(host: Host, run_id: str | None) -> list[Json]:
    if run_id is None:
        return host.runs.listing(history=False)
    document = host.runs.document(run_id)
    return [] if document is None else [document]
