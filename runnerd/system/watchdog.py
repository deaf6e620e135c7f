"""Proof that every loop still moves, for the watchdog. Pure.

Invariant: a loop that waits on the API is alive; only one that missed its own bound is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from runnerd.log.alerts import Alert
from runnerd.log.log import Log
from runnerd.system.systemd import Systemd


class Pulse:
    """Each loop stamps its progress; `stuck` names those that missed their bound."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: dict[str, tuple[float, float]] = {}

    def beat(self, loop: str, *, within_s: float) -> None:
        """`loop` made progress and promises to again within `within_s` seconds."""
        self._seen[loop] = (self._clock(), within_s)

    def leave(self, loop: str) -> None:
        """`loop` has ended and promises nothing more."""
        self._seen.pop(loop, None)

    def stuck(self) -> tuple[str, ...]:
        now = self._clock()
        return tuple(loop for loop, (at, within_s) in self._seen.items() if now - at > within_s)


async def keep_watchdog(*, systemd: Systemd, pulse: Pulse, log: Log) -> None:
    """Feed the watchdog while every loop makes progress; the API's health has no say in it."""
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
