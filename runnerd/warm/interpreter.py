"""Starts one warm interpreter, watches it and stops it.

Invariants: cancelling the task of `live` leaves the process running, for the next daemon to end (warm/keeper.py); only
`stop` ends it. Its runs are processes of their own and live on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from datetime import datetime

from runnerd.core.errors import SpawnerError
from runnerd.core.machine import Intent
from runnerd.core.process import ForkOf, LaunchSpec, WarmState
from runnerd.processes.link import SpawnerLink, describe_end
from runnerd.processes.protocol import Record
from runnerd.warm.plan import Plan

_PROBLEM_MAX_CHARACTERS = 300


class Interpreter:
    """Holds one warm interpreter. `stamp` is what it was started from, `runs` how many were forked from it.

    `begun_s`, `used_s` (of its last run) and `held_until_s` are by the monotonic clock.
    """

    def __init__(
        self, *, plan: Plan, stamp: str, spec: LaunchSpec, link: SpawnerLink, at_s: float, since: datetime
    ) -> None:
        self.plan = plan
        self.stamp = stamp
        self.since = since
        self.runs = 0
        self.refusals = 0  # forks that have failed since one has succeeded
        self.begun_s = self.used_s = at_s
        self.held_until_s = at_s  # for a scheduled run
        self.settled = asyncio.Event()  # it is ready, or has ended
        self._spec = spec
        self._link = link
        self._changed = asyncio.Event()
        self._stopping = False
        self._failure: str | None = None  # why it is stopped, where that is its fault

    @property
    def key(self) -> str:
        return self._spec.key

    @property
    def fork_of(self) -> ForkOf:
        """What the launch spec of a run names it by."""
        return ForkOf(key=self._spec.key, attempt=self._spec.attempt)

    @property
    def record(self) -> Record | None:
        """The spawner's record of its process."""
        return self._link.record(self._spec.key, self._spec.attempt)

    @property
    def state(self) -> WarmState:
        """Its state as the spawner said it."""
        record = self.record
        return "importing" if record is None or record.warm is None else record.warm.state

    @property
    def is_ready(self) -> bool:
        """Whether a run can be forked from it now."""
        record = self.record
        return self.state == "ready" and record is not None and record.phase == "running" and not self._stopping

    def note_run(self, at_s: float) -> None:
        """Note that a run is forked from it."""
        self.runs += 1
        self.used_s = at_s

    def stop(self, *, failure: str | None = None) -> None:
        """Have it stopped; `failure`: why, where that is its own fault."""
        self._failure = self._failure or failure
        self._stopping = True
        self._changed.set()

    async def live(self) -> str | None:
        """Start it and wait for its end; return why it has failed, None when it was stopped or is lost."""
        self._link.add_listener(self.key, self._changed.set)
        try:
            failure = await self._watch()
            await self._link.forget(self._spec.key, self._spec.attempt)
            with contextlib.suppress(OSError):
                os.unlink(self._spec.output)
            return None if failure is None else one_line(failure)
        finally:
            self.settled.set()
            self._link.remove_listener(self.key)

    async def _watch(self) -> str | None:
        try:
            await self._link.spawn(self._spec)
        except SpawnerError as error:
            return str(error)
        asked = False
        while True:
            self._changed.clear()
            record = self.record
            if record is None and self._link.connected:
                return self._failure  # another spawner, which has no process of the last one
            if record is not None and record.phase == "exited":
                return self._why_ended(record)
            if self.state == "ready":
                self.settled.set()
            if self._stopping and not asked:
                asked = True
                await self._link.stop(self._spec.key, self._spec.attempt, reason=Intent.EVICT)
                continue
            await self._changed.wait()

    def _why_ended(self, record: Record) -> str | None:
        ended = record.exit
        by_itself = ended is not None and not ended.code and ended.signal is None
        if self._stopping or record.stop_reason is not None or (by_itself and self.state == "ready"):
            return self._failure  # by itself: its spawner has ended, and another one has the record
        if record.warm is not None and record.warm.problem:
            return record.warm.problem
        if record.error is not None:
            return record.error.message
        if ended is None or (ended.code is None and ended.signal is None):
            return self._failure  # only its parent learns how it ended: it lost its spawner while it imported
        return f"its process ended: {describe_end(record)}"


def one_line(words: str) -> str:
    """Make one printable line of what an interpreter said, which has imported code of the flow's user, or the API."""
    line = " ".join("".join(character if character.isprintable() else " " for character in words).split())
    return line if len(line) <= _PROBLEM_MAX_CHARACTERS else line[: _PROBLEM_MAX_CHARACTERS - 3] + "..."
