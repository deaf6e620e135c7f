"""Stops the long-lived processes of a stopping daemon, each within a bound: also where no spawner can end them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

from runnerd.runs.drain import EXIT_S, wait_first


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """One stop to be made. `what` names what it ends, `timeout_s` is after how long the spawner sends SIGKILL."""

    what: str
    make: Callable[[], Coroutine[Any, Any, None]]
    timeout_s: float


async def stop_in_order(stops: Iterable[Stop], *, hurry: asyncio.Queue[None], extend: Callable[[], None]) -> list[str]:
    """Make these stops, one after the other; return what had not ended EXIT_S after its timeout.

    An item of `hurry` (one more SIGTERM) begins the next stop at once: the spawner ends the processes after their
    timeout anyway. `extend` is called every few seconds, to extend systemd's time limit for the stop.
    """
    return [stop.what for stop in stops if not await wait_first(stop.make(), stop.timeout_s + EXIT_S, hurry, extend)]
