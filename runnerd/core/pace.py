"""Says how far apart requests are: as configured, or further while events of the server are known to arrive. Pure."""

from __future__ import annotations

from dataclasses import dataclass

STRETCH = 3.0
JITTER = 0.1  # an interval is longer or shorter by at most so much of it
# A server calls a deployment or a queue that was not polled for 60 s not ready, and jitter adds to this.
POLL_MAX_S = 45.0


@dataclass(slots=True)
class Pace:
    """`woken`: whether events tell of new runs, so that a poll is only for what they have missed."""

    woken: bool = False

    def interval_s(self, configured_s: float) -> float:
        """Return the seconds between two polls whose configured interval this is."""
        return self.longest_s(configured_s) if self.woken else configured_s

    def ahead_s(self, configured_s: float) -> float:
        """Return the seconds until which a poll must list runs so that none falls due before the next poll."""
        return self.interval_s(configured_s) * (1.0 + JITTER)

    def longest_s(self, configured_s: float) -> float:
        """Return the seconds between two polls while events arrive, whether they do now or not."""
        return max(configured_s, min(configured_s * STRETCH, POLL_MAX_S))

    def check_s(self, usual_s: float, *, woken_s: float) -> float:
        """Return the seconds between two checks of what events tell of as well."""
        return woken_s if self.woken else usual_s
