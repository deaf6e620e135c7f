"""Waits that end: each with a limit of its own, and all with the deadline of the whole benchmark."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class NotReached(Exception):
    """What was waited for did not come within its limit."""


class OutOfTime(Exception):
    """The time of the whole benchmark is over."""


class Deadline:
    """The moment at which measuring ends, in `seconds` from now; that of a part is never later than its whole's."""

    def __init__(
        self, seconds: float, *, clock: Callable[[], float] = time.monotonic, whole: Deadline | None = None
    ) -> None:
        self._clock, self._whole, self._seconds = clock, whole, seconds
        self._begin = clock()
        self._end = self._begin + (seconds if whole is None else min(seconds, whole.left_s))

    def part(self, seconds: float) -> Deadline:
        """A deadline for one part; when only the part's time is over, its waits end with NotReached."""
        return Deadline(seconds, clock=self._clock, whole=self)

    @property
    def left_s(self) -> float:
        return max(0.0, self._end - self._clock())

    @property
    def spent_s(self) -> float:
        return self._clock() - self._begin

    def check(self) -> None:
        if self._whole is not None:
            self._whole.check()
        if self.left_s <= 0:
            raise OutOfTime if self._whole is None else NotReached(f"it took more than {self._seconds:g} s")

    def wait(self, reached: Callable[[], T | None], what: str, limit_s: float, *, every_s: float = 0.05) -> T:
        """What `reached` returns once it is true of something; NotReached and OutOfTime are its two other ends."""
        until = self._clock() + limit_s
        while True:
            self.check()
            found = reached()
            if found:
                return found
            if self._clock() >= until:
                raise NotReached(f"waited {limit_s:g} s for {what}")
            time.sleep(every_s)

    def rest(self, seconds: float) -> None:
        """Let `seconds` go by."""
        time.sleep(min(seconds, self.left_s))
        self.check()
