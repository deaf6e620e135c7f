"""The ambient that every part of the daemon is given: log, clocks, back-off and pulse."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from runnerd.core.backoff import Backoff
from runnerd.log.log import Log
from runnerd.system.watchdog import Pulse


@dataclass(frozen=True, slots=True, kw_only=True)
class Ambient:
    """Holds what every part needs; built once by the composition root, and by tests with clocks of their own."""

    log: Log
    now: Callable[[], datetime]  # the wall clock, in UTC
    clock: Callable[[], float]  # a monotonic clock, in seconds
    backoff: Callable[[], Backoff]  # a fresh one for each caller that retries requests to the API
    pulse: Pulse


def real_ambient(log: Log) -> Ambient:
    """Build the ambient of a production daemon: real clocks, and a back-off of 0.5 s to 30 s."""
    return Ambient(
        log=log,
        now=lambda: datetime.now(UTC),
        clock=time.monotonic,
        backoff=lambda: Backoff(first_s=0.5, cap_s=30.0),
        pulse=Pulse(clock=time.monotonic),
    )


def call_later(seconds: float, call: Callable[[], None]) -> None:
    """Call `call` after `seconds` on the running event loop's clock."""
    asyncio.get_running_loop().call_later(seconds, call)
