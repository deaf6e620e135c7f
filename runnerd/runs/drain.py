"""Draining: nothing new is claimed, what runs may finish, and what has not finished in time is ended.

Invariant: a drain that was asked for by `runnerctl drain` ends by `undrain`; one because the host stops ends with
the daemon.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from runnerd.core.machine import Phase
from runnerd.core.wakes import Wakes
from runnerd.runs.supervisor import Supervisor

REPORT_S = 10.0  # how long a stopping daemon waits to tell the API; what it could not tell is in the journal


@dataclass(frozen=True, slots=True, kw_only=True)
class Draining:
    """A drain under way; `until` is when what still runs is ended, None for never."""

    since: datetime
    reason: str
    until: datetime | None


class Drain:
    """Holds the supervisor back, and ends runs when their time is up."""

    def __init__(self, *, supervisor: Supervisor, wakes: Wakes, now: Callable[[], datetime]) -> None:
        self._supervisor = supervisor
        self._wakes = wakes
        self._now = now
        self._changed = asyncio.Event()
        self.draining: Draining | None = None

    def begin(self, *, reason: str, timeout_s: float | None) -> None:
        now = self._now()
        until = now + timedelta(seconds=timeout_s) if timeout_s is not None else None
        self.draining = Draining(since=now, reason=reason, until=until)
        self._supervisor.draining = f"this host is draining: {reason}"
        self._wakes.draining.set()
        self._note_change()

    def end(self) -> None:
        self.draining = None
        self._supervisor.draining = None
        self._wakes.draining.clear()
        self._wakes.poll_now()
        self._note_change()

    def _note_change(self) -> None:
        self._changed.set()
        self._wakes.pools.set()  # Prefect's own workers are ended by a drain, and begun after it

    async def run(self) -> None:
        """End what still runs when a drain's time is up, for ever."""
        while True:
            self._changed.clear()
            until = self.draining.until if self.draining else None
            try:
                async with asyncio.timeout((until - self._now()).total_seconds() if until else None):
                    await self._changed.wait()
            except TimeoutError:
                self._supervisor.evict_all()
                await self._changed.wait()

    async def finish(self, *, hurry: asyncio.Queue[None], extend: Callable[[], None]) -> None:
        """For a daemon that stops: wait for the runs, then end them, then kill them, then tell the API.

        Each item of `hurry` (one more SIGTERM) goes on to the next step at once. `extend` is called every few
        seconds, so that systemd gives us the time this takes.
        """
        drained = self.draining
        wait_s = (drained.until - self._now()).total_seconds() if drained and drained.until else None
        if await self._emptied(wait_s, hurry, extend):
            return
        self._supervisor.evict_all()
        if await self._hurried(hurry, extend):
            self._supervisor.evict_all(now=True)
            await self._hurried(asyncio.Queue(), extend)
        await self._emptied(REPORT_S, hurry, extend)

    async def _emptied(self, wait_s: float | None, hurry: asyncio.Queue[None], extend: Callable[[], None]) -> bool:
        """Whether every run was done before the time was up or somebody was in a hurry."""
        return await first(self._supervisor.emptied.wait(), wait_s, hurry, extend)

    async def _hurried(self, hurry: asyncio.Queue[None], extend: Callable[[], None]) -> bool:
        """Wait until no process is left; whether somebody was in a hurry instead."""
        return not await first(self._no_process(), None, hurry, extend)

    async def _no_process(self) -> None:
        # A claim without an answer has no process, and will have none: the intent to evict is on record.
        idle = (Phase.CLAIMING, Phase.REPORTING)
        while any(record.phase not in idle for record in self._supervisor.records()):
            await self._supervisor.wait_change()


async def first(
    goal: Coroutine[Any, Any, object], wait_s: float | None, hurry: asyncio.Queue[None], extend: Callable[[], None]
) -> bool:
    """Wait for `goal`, a time, or an item of `hurry`, whichever comes first; whether it was the goal."""
    loop = asyncio.get_running_loop()
    until = None if wait_s is None else loop.time() + max(0.0, wait_s)
    reached = asyncio.ensure_future(goal)
    hurried = asyncio.ensure_future(hurry.get())
    try:
        while True:
            extend()
            left = 5.0 if until is None else min(5.0, until - loop.time())
            await asyncio.wait({reached, hurried}, timeout=max(0.0, left), return_when=asyncio.FIRST_COMPLETED)
            if reached.done():
                reached.result()
                return True
            if hurried.done() or (until is not None and loop.time() >= until):
                return False
    finally:
        reached.cancel()
        hurried.cancel()
