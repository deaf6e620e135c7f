"""What every part of the daemon is given: its log, its clocks, its back-off and its proof of life."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from runnerd.log.log import Log
from runnerd.prefect_api.backoff import Backoff
from runnerd.system.watchdog import Pulse


@dataclass(frozen=True, slots=True, kw_only=True)
class Ambient:
    """Built once by the composition root; tests have other clocks, and less patience."""

    log: Log
    now: Callable[[], datetime]  # the wall clock, in UTC
    clock: Callable[[], float]  # a monotonic clock, in seconds
    backoff: Callable[[], Backoff]  # a fresh one for each caller that retries requests to the API
    pulse: Pulse


def real_ambient(log: Log) -> Ambient:
    """The ambient of a daemon that runs for real."""
    return Ambient(
        log=log,
        now=lambda: datetime.now(UTC),
        clock=time.monotonic,
        backoff=lambda: Backoff(first_s=0.5, cap_s=30.0),
        pulse=Pulse(clock=time.monotonic),
    )


def call_later(seconds: float, call: Callable[[], None]) -> None:
    """Call `call` in so many seconds, on the running event loop's clock."""
    asyncio.get_running_loop().call_later(seconds, call)
