"""Decides what one round of a served pool does: synchronise it as a whole, or send a heartbeat only. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

_EARLY_S = 0.5  # what is due so soon is done now


@dataclass(slots=True)
class Turn:
    """Remembers the rounds of one pool, `rest_s` apart. All times are of one monotonic clock, in seconds."""

    rest_s: float
    began: float = -math.inf
    whole: bool = True
    _synced_at: float = -math.inf
    _not_before: float = -math.inf

    def begin(self, now: float, *, every_s: float, woken: bool) -> None:
        """Begin a round: `whole` if the pool was `woken`, or last synchronised `every_s` ago, but not put off."""
        due = woken or now - self._synced_at >= every_s - _EARLY_S
        self.began, self.whole = now, due and now >= self._not_before
        if self.whole:
            self._synced_at = now

    def put_off(self, until: float) -> None:
        """Synchronise again then, and not before."""
        self._synced_at, self._not_before = -math.inf, until

    def left_s(self, now: float) -> float:
        """Return the seconds until the next round."""
        return min(self._not_before - now, self.rest_s) if self._not_before > now else self.rest_s
