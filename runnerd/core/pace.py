"""Says how far apart polls are: as configured, or further while the events of the server are known to arrive. Pure."""

from __future__ import annotations

from dataclasses import dataclass

STRETCH = 3.0


@dataclass(slots=True)
class Pace:
    """`woken`: whether events tell of new runs, so that a poll is only for what they have missed."""

    woken: bool = False

    def interval_s(self, configured_s: float) -> float:
        """Return the seconds between two polls whose configured interval this is."""
        return configured_s * STRETCH if self.woken else configured_s
