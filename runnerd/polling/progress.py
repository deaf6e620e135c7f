"""Tracks the progress of polls: for the watchdog, and for the time of the last poll in the metrics.

Invariant: a loop that waits for the API is alive; only one that misses its own bound keeps the watchdog from being fed.
"""

from __future__ import annotations

from datetime import datetime

from runnerd.system.ambient import Ambient

REQUEST_BOUND_S = 180.0  # one request with its connection and its time limit
BACKOFF_BOUND_S = 3600.0  # a wait after failed requests, which may be as long as the server's Retry-After


class PollProgress:
    """Stamps each step of a poll. `answered`: whether the API has listed runs of the source that is asked."""

    def __init__(self, *, ambient: Ambient) -> None:
        self._pulse = ambient.pulse
        self._now = ambient.now
        self.answered = False
        self.polled_at: datetime | None = None  # when the API last listed runs

    def begin_source(self) -> None:
        """Forget the answers of the source before."""
        self.answered = False

    def note_answer(self) -> None:
        """Stamp that the API has listed runs just now."""
        self.polled_at, self.answered = self._now(), True

    def beat(self, *, within_s: float = REQUEST_BOUND_S) -> None:
        """Promise the watchdog the next beat within so many seconds; by default, within one request."""
        self._pulse.beat("poll", within_s=within_s)
