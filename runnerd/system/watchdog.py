"""Feeds systemd's watchdog while every main loop of the daemon makes progress.

Invariant: a loop that waits for the API counts as alive; a loop is stuck only when it missed its own bound.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from runnerd.log.alerts import Alert
from runnerd.log.log import Log
from runnerd.system.systemd import Systemd


class Pulse:
    """Records when each loop last made progress and by when it promised to again."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._beats: dict[str, tuple[float, float]] = {}  # loop -> time of its last beat, bound in seconds

    def beat(self, loop: str, *, within_s: float) -> None:
        """Record progress of `loop`, which has to beat again within `within_s` seconds."""
        self._beats[loop] = (self._clock(), within_s)

    def leave(self, loop: str) -> None:
        """Stop watching `loop`, because it has ended."""
        self._beats.pop(loop, None)

    def stuck(self) -> tuple[str, ...]:
        """Return the names of the loops that missed their bound."""
        now = self._clock()
        return tuple(loop for loop, (at, within_s) in self._beats.items() if now - at > within_s)


async def feed_watchdog(*, systemd: Systemd, pulse: Pulse, log: Log) -> None:
    """Feed the watchdog twice per interval while no loop is stuck; return at once where systemd's watchdog is off."""
    interval_s = systemd.watchdog_s()
    if interval_s is None:
        return
    while True:
        stuck = pulse.stuck()
        if stuck:
            log.error("not feeding the watchdog", stuck=", ".join(stuck), alert=Alert.WATCHDOG_STARVED)
        else:
            systemd.feed_watchdog()
        await asyncio.sleep(interval_s / 2)
