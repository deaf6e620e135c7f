"""Notes requests and answers in the order in which they come, and how long the API has been silent.

No wall clock: one that is set back must not make an outage of hours look as if it were over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Traffic:
    """Counts the requests under way, and knows which of them were sent before the latest answer."""

    def __init__(self) -> None:
        self._events = 0
        self._answer = 0  # the number of the latest one
        self.answers = 0
        self.under_way = 0  # requests without an answer so far
        self._silent_since: float | None = None  # since then a request has had no answer, nor has any other one

    @contextmanager
    def request(self) -> Iterator[int]:
        """Note a request while it is under way; yields its number."""
        self._events += 1
        self.under_way += 1
        if self._silent_since is None:
            self._silent_since = asyncio.get_running_loop().time()
        try:
            yield self._events
        finally:
            self.under_way -= 1

    def note_answer(self) -> None:
        """Note an answer to a request that is still under way, whatever the answer says."""
        self._events += 1
        self.answers += 1
        self._answer = self._events
        self._silent_since = asyncio.get_running_loop().time() if self.under_way > 1 else None

    def answered_since(self, request: int) -> bool:
        """Return whether the API has answered another request after this one was sent."""
        return self._answer > request

    @property
    def silent_s(self) -> float:
        """For how long the API has answered nothing, counted from the first request since the last answer."""
        return 0.0 if self._silent_since is None else asyncio.get_running_loop().time() - self._silent_since
