"""Notes requests and answers in the order in which they come, and how long the API has been silent.

No wall clock: one that is set back must not make an outage of hours look as if it were over.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

MINUTE_S = 60


class Traffic:
    """Counts the requests under way, and knows which of them were sent before the latest answer."""

    def __init__(self) -> None:
        self._events = 0
        self._answer = 0  # the number of the latest one
        self._unanswered: dict[str, tuple[int, int]] = {}  # by kind: how many, and the number of the latest one's end
        self.answers = 0
        self.under_way = 0  # requests without an answer so far
        self._silent_since: float | None = None  # since then a request has had no answer, nor has any other one
        self._silent_before: float | None = None  # the same, without the requests that are under way
        self._sent: deque[tuple[int, int]] = deque(maxlen=MINUTE_S)  # a second, and how many were sent in it

    @contextmanager
    def request(self) -> Iterator[int]:
        """Note a request while it is under way; yields its number."""
        self._events += 1
        number = self._events
        self.under_way += 1
        if self._silent_since is None:
            self._silent_since = asyncio.get_running_loop().time()
        try:
            yield number
        except asyncio.CancelledError:
            raise
        except BaseException:
            if not self.answered_since(number):
                self._silent_before = self._silent_since
            raise
        finally:
            self.under_way -= 1
            if not self.under_way:  # else the time in which nothing is asked would count as silence
                self._silent_since = self._silent_before

    def note_sent(self) -> None:
        """Count one HTTP request that is sent: also one that repeats another, and the opening of a WebSocket."""
        second = int(asyncio.get_running_loop().time())
        count = self._sent.pop()[1] if self._sent and self._sent[-1][0] == second else 0
        self._sent.append((second, count + 1))

    @property
    def per_minute(self) -> int:
        """How many HTTP requests were sent in the last minute."""
        since = int(asyncio.get_running_loop().time()) - MINUTE_S
        return sum(count for second, count in self._sent if second > since)

    def note_answer(self) -> None:
        """Note an answer to a request that is still under way, whatever the answer says."""
        self._events += 1
        self.answers += 1
        self._answer = self._events
        self._silent_since = asyncio.get_running_loop().time() if self.under_way > 1 else None
        self._silent_before = None

    def note_success(self, kind: str) -> None:
        """Note that a request of this kind was answered as it should be."""
        self._unanswered.pop(kind, None)

    def note_unanswered(self, kind: str, request: int) -> int:
        """Note a request without an answer where others had one; return how often this kind had none since its success.

        Requests that were under way together count once: a restart of the server loses all of them.
        """
        count, noted = self._unanswered.get(kind, (0, 0))
        if request > noted:
            self._events += 1
            count += 1
            self._unanswered[kind] = (count, self._events)
        return count

    def answered_since(self, request: int) -> bool:
        """Return whether the API has answered another request after this one was sent."""
        return self._answer > request

    @property
    def silent_s(self) -> float:
        """For how long the API has answered nothing, counted from the first request since the last answer.

        It counts while a request is under way, and after one that failed while no other was answered.
        """
        return 0.0 if self._silent_since is None else asyncio.get_running_loop().time() - self._silent_since
