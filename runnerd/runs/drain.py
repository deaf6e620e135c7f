"""Drains the host: stops claiming, lets the runs end, and ends those that have not ended within the time limit.

Invariant: a drain by `runnerctl drain` lasts until `runnerctl undrain`; a drain because the host stops lasts until the
daemon exits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from runnerd.core.exit_words import DRAINED
from runnerd.core.machine import Phase, RunRecord
from runnerd.core.wakes import Wakes
from runnerd.runs.supervisor import Supervisor

REPORT_S = 10.0  # how long a stopping daemon waits for its reports; the journal has those that were not accepted
EXIT_S = 30.0  # how long it waits for processes to end beyond their stop_timeout, and again after SIGKILL
_REPEAT_S = 5.0  # until an end that could not be recorded is recorded
_STOP_TIMEOUT_S = 30.0  # of a run that an older version started


@dataclass(frozen=True, slots=True, kw_only=True)
class Draining:
    """Describes a drain under way; `until` is when the remaining runs are ended, None for never.

    `stopping`: the daemon stops, and the drain cannot be ended.
    """

    since: datetime
    reason: str
    until: datetime | None
    stopping: bool = False


STOPPING = "the host is stopping"
_ENDED = (Phase.REPORTING, Phase.DONE)  # no process is left
_UNNAMED = "asked by an operator"


class Drain:
    """Keeps the supervisor from claiming during a drain, and ends the remaining runs at its end."""

    def __init__(self, *, supervisor: Supervisor, wakes: Wakes, now: Callable[[], datetime]) -> None:
        self._supervisor = supervisor
        self._wakes = wakes
        self._now = now
        self._changed = asyncio.Event()
        self.draining: Draining | None = None

    def begin(self, *, reason: str | None, timeout_s: float | None) -> None:
        """Begin a drain, or replace what is given of the one under way; None: as it was, or no limit.

        A stop that is under way stays as it is.
        """
        before, now = self.draining, self._now()
        if before is not None and before.stopping:
            return
        until = before.until if before is not None else None
        if timeout_s is not None:
            until = now + timedelta(seconds=timeout_s)
        reason = reason or (before.reason if before is not None else _UNNAMED)
        self._set(Draining(since=before.since if before is not None else now, reason=reason, until=until))

    def begin_stop(self, *, timeout_s: float) -> None:
        """Begin the drain of a stopping daemon, which replaces any other and lasts until the daemon exits."""
        now = self._now()
        self._set(Draining(since=now, reason=STOPPING, until=now + timedelta(seconds=timeout_s), stopping=True))

    def _set(self, draining: Draining) -> None:
        self.draining = draining
        self._supervisor.draining = f"this host is draining: {draining.reason}"
        self._wakes.draining.set()
        self._note_change()

    def end(self) -> str | None:
        """End the drain: runs are claimed again, from a poll at once. Return why the drain cannot be ended, if so."""
        if self.draining is not None and self.draining.stopping:
            return STOPPING
        self.draining = None
        self._supervisor.draining = None
        self._wakes.draining.clear()
        self._wakes.poll_now()
        self._note_change()
        return None

    def _note_change(self) -> None:
        self._changed.set()
        self._wakes.pools.set()  # a drain stops Prefect's own workers, and its end starts them

    async def run(self) -> None:
        """End the remaining runs whenever a drain reaches its time limit; never returns."""
        while True:
            self._changed.clear()
            until = self.draining.until if self.draining else None
            try:
                async with asyncio.timeout((until - self._now()).total_seconds() if until else None):
                    await self._changed.wait()
            except TimeoutError:
                stopping = self.draining is not None and self.draining.stopping
                await self._evict_until(self._changed.wait(), cause=None if stopping else DRAINED)

    async def _evict_until(
        self, goal: Coroutine[Any, Any, object], *, now: bool = False, cause: str | None = None
    ) -> None:
        """End all runs, and wait for `goal`; meanwhile repeat what cannot be recorded, for the disk may get room."""
        self._supervisor.evict_all(now=now, cause=cause)

        async def repeat() -> None:
            while any(record.intent is None and record.phase not in _ENDED for record in self._supervisor.records()):
                await asyncio.sleep(_REPEAT_S)
                self._supervisor.evict_all(now=now, cause=cause)

        repeating = asyncio.ensure_future(repeat())
        try:
            await goal
        finally:
            repeating.cancel()

    async def finish(self, *, hurry: asyncio.Queue[None], extend: Callable[[], None]) -> list[str]:
        """Finish all runs before the daemon exits: wait for them, stop them, kill them, then wait for their reports.

        Each item of `hurry` (one more SIGTERM) begins the next step at once. `extend` is called every few seconds, to
        extend systemd's time limit for the stop. Return the runs that may have a process still, because their end
        could not be recorded, or there is no spawner, or SIGKILL does not end them: no step waits without a bound.
        """
        drained = self.draining
        wait_s = (drained.until - self._now()).total_seconds() if drained and drained.until else None
        if await self._wait_done(wait_s, hurry, extend):
            return []
        timeouts_s = [_STOP_TIMEOUT_S if one.stop_timeout_s is None else one.stop_timeout_s for one in self._unended()]
        stopping = self._evict_until(self._wait_no_process())
        if not await wait_first(stopping, max(timeouts_s, default=0.0) + EXIT_S, hurry, extend):
            await wait_first(self._evict_until(self._wait_no_process(), now=True), EXIT_S, asyncio.Queue(), extend)
        await self._wait_done(REPORT_S, hurry, extend)
        return [record.id for record in self._unended()]

    async def _wait_done(self, wait_s: float | None, hurry: asyncio.Queue[None], extend: Callable[[], None]) -> bool:
        """Wait until all runs are done; False when the time was up or an item of `hurry` came before."""
        return await wait_first(self._supervisor.emptied.wait(), wait_s, hurry, extend)

    def _unended(self) -> list[RunRecord]:
        """Return the runs that have a process, or may get one."""
        # A claim without an answer has no process and gets none: its intent to evict is on record.
        return [one for one in self._supervisor.records() if one.phase not in (Phase.CLAIMING, *_ENDED)]

    async def _wait_no_process(self) -> None:
        while self._unended():
            await self._supervisor.wait_change()


async def wait_first(
    goal: Coroutine[Any, Any, object], wait_s: float | None, hurry: asyncio.Queue[None], extend: Callable[[], None]
) -> bool:
    """Wait for `goal`, `wait_s` seconds or an item of `hurry`, whichever comes first; True when it was the goal."""
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
