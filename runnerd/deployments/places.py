"""Lets a few registrations make their requests at a time: fewer where the server refuses writes that meet.

A server on SQLite does more with one or two writers than with four, of whose writes it refuses most; others do not.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from runnerd.core.backoff import Backoff

AT_ONCE_MAX = 4
_DONE_FOR_ONE_MORE = 10  # in a row


class Places:
    """Lends places, each with its back-off for outages; the first to come is the first to get one."""

    def __init__(self, *, backoff: Callable[[], Backoff]) -> None:
        self._free = [backoff() for _ in range(AT_ONCE_MAX)]
        self._at_once = AT_ONCE_MAX
        self._done = 0  # in a row, since the number of places was changed
        self._waiting: deque[asyncio.Future[Backoff]] = deque()

    @asynccontextmanager
    async def one(self) -> AsyncIterator[Backoff]:
        """Lend a place as long as it is used."""
        asked: asyncio.Future[Backoff] = asyncio.get_running_loop().create_future()
        self._waiting.append(asked)
        self._lend()
        try:
            yield await asked
        finally:
            # A place may have been lent to a task that was cancelled before it learnt of that.
            if asked.done() and not asked.cancelled():
                self._free.append(asked.result())
            self._lend()

    def _lend(self) -> None:
        while self._waiting and AT_ONCE_MAX - len(self._free) < self._at_once:
            asked = self._waiting.popleft()
            if not asked.done():
                asked.set_result(self._free.pop())

    def note_done(self) -> None:
        """Note that the server carried out the requests of one; after several there is a place more."""
        self._done += 1
        if self._done >= _DONE_FOR_ONE_MORE:
            self._at_once = min(self._at_once + 1, AT_ONCE_MAX)
            self._done = 0

    def note_refused(self) -> None:
        """Note that the server asked to come later: there is one place until several have been carried out."""
        self._at_once = 1
        self._done = 0
