"""Runs a long-lived process through the spawner: starts the process again whenever it ends.

Invariants: the process outlives the daemon, and the next daemon finds it by its key; the key changes with the settings
that the process is started from, so a process with other settings is found, and stopped once its successor can be
started; being cancelled detaches, only `stop` ends a process.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from runnerd.core.backoff import Backoff
from runnerd.core.errors import SpawnerError
from runnerd.core.process import LaunchSpec
from runnerd.processes.link import SpawnerLink, how_it_ended
from runnerd.processes.protocol import Record


class State(StrEnum):
    WAITING = "waiting"  # for the spawner, or until the process is wanted
    PREPARING = "preparing"  # the launch spec is being made
    RUNNING = "running"
    RESTARTING = "restarting"  # the process ended, and is started again soon
    FAILED = "failed"  # the process cannot be started; the start is retried


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """The back-off between restarts; a process that ran for `steady_s` is restarted after `first_s` again."""

    first_s: float = 1.0
    cap_s: float = 60.0
    steady_s: float = 60.0


WAITS = Waits()


@dataclass(frozen=True, slots=True)
class Unready:
    """Why the process cannot be started now, and the least and the greatest delay between two tries."""

    words: str
    least_s: float = 0.0
    cap_s: float = 60.0


class LongLived:
    """Starts, watches and restarts one long-lived process.

    `key` returns the key under which the process is wanted now, None while it is not wanted; `ours` returns whether a
    key is one of this process, past or present. `spec` is awaited before each start and returns what to start; key and
    attempt are filled in here. `starting` is called right before each start. `began` is called after a start with the
    spawner's record and True, and with False for a process that was found running. `ended` is called with the words for
    how the process ended or why it cannot be started, and with the seconds until the next start.
    """

    def __init__(
        self,
        *,
        link: SpawnerLink,
        key: Callable[[], str | None],
        ours: Callable[[str], bool],
        spec: Callable[[], Awaitable[LaunchSpec | Unready]],
        began: Callable[[Record, bool], None],
        ended: Callable[[str, float], None],
        starting: Callable[[], None] = lambda: None,
        waits: Waits = WAITS,
    ) -> None:
        self._link = link
        self._key = key
        self._ours = ours
        self._spec = spec
        self._began = began
        self._ended = ended
        self._starting = starting
        self._waits = waits
        self._woken = asyncio.Event()  # a record of its processes has changed, or `look` was called
        self._asked = asyncio.Event()
        self._stopping = False
        self._attempts: dict[str, int] = {}
        self._since: float | None = None  # by the loop's clock: when the latest was started or found
        self._failing = False
        self.state = State.WAITING
        self.restarts = 0
        self.problem: str | None = None  # how the process ended or cannot be started, until it has run steadily again

    def look(self) -> None:
        """Ask `key` and `spec` again: `key` may return another one, or `spec` may find what it needs."""
        self._woken.set()
        self._asked.set()

    def alive(self) -> Record | None:
        """Return the spawner's last record of the running process; of the latest, while one is being replaced."""
        found = [seen for seen in self._records() if seen.phase != "exited"]
        return max(found, key=lambda seen: seen.started_at, default=None)

    async def run(self) -> None:
        """Keep the process running until `stop` is called."""
        backoff = Backoff(first_s=self._waits.first_s, cap_s=self._waits.cap_s, jitter=0.0)
        while not self._stopping:
            self._since = None
            end = await self._once()
            if end is None or self._steady():
                backoff.reset()
            if end is None:
                continue
            delay_s = backoff.next_s(at_least_s=end.least_s, cap_s=end.cap_s)
            self.problem, self._failing = end.words, self.state is State.FAILED
            self._ended(end.words, delay_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._asked.wait()

    async def _once(self) -> Unready | None:
        """Start the process, or find it running, and wait for its end; None if another one is wanted, or none."""
        await self._link.wait_up()
        self._asked.clear()
        key = self._key()
        if key is None:
            self.state, self.problem = State.WAITING, None
            await self._end(self._records())
            await self._unwanted()
            return None
        alive = [seen for seen in self._records() if seen.key == key and seen.phase != "exited"]
        if alive:
            seen = max(alive, key=lambda seen: seen.attempt)
            await self._end(one for one in self._records() if one is not seen)
        else:
            started = await self._start(key)
            if not isinstance(started, Record):
                return started
            seen = started
        self._attempts[key] = seen.attempt
        self._since = asyncio.get_running_loop().time()
        if self._failing:
            self.problem, self._failing = None, False  # the start had failed, and now has not
        self.state = State.RUNNING
        self._began(seen, not alive)
        return await self._watch(seen)

    async def _unwanted(self) -> None:
        while self._key() is None and not self._stopping:
            self._woken.clear()
            await self._woken.wait()

    async def _start(self, key: str) -> Record | Unready | None:
        """Start the process; None if it is not wanted any more, for `spec` may have taken long."""
        self.state = State.PREPARING if self._attempts.get(key) is None else State.RESTARTING
        spec = await self._spec()
        if self._stopping or self._key() != key:
            return None
        if isinstance(spec, Unready):
            self.state = State.FAILED
            return spec
        before = [*self._records()]
        known = [self._attempts.get(key, 0), *(seen.attempt for seen in before if seen.key == key)]
        await self._end(before)
        self.restarts += key in self._attempts
        self._starting()
        try:
            return await self._link.spawn(replace(spec, key=key, attempt=max(known) + 1))
        except SpawnerError as error:
            self.state = State.FAILED
            return self._failed(str(error))

    async def _watch(self, seen: Record) -> Unready | None:
        self._link.listen(seen.key, self._woken.set)  # earlier events are in the record
        while not self._stopping and self._key() == seen.key:
            self._woken.clear()
            latest = self._link.record(seen.key, seen.attempt)
            if latest is None and self._link.connected:
                self.state = State.RESTARTING
                return self._failed("was lost")
            if latest is not None and latest.phase == "exited":
                self.state = State.RESTARTING
                return self._failed(how_it_ended(latest))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if self.problem is None else self._waits.steady_s):
                    await self._woken.wait()
            if self._steady():
                self.problem = None
        return None

    def _failed(self, words: str) -> Unready:
        return Unready(words, cap_s=self._waits.cap_s)

    def _steady(self) -> bool:
        loop = asyncio.get_running_loop()
        return self._since is not None and loop.time() - self._since >= self._waits.steady_s

    # --- ending -----------------------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """End the process, also one that an earlier daemon started."""
        self._stopping = True
        self.look()
        await self._end(self._records())
        self.state = State.WAITING

    def _records(self) -> list[Record]:
        return [seen for seen in self._link.records() if self._ours(seen.key)]

    async def _end(self, these: Iterable[Record]) -> None:
        for seen in list(these):
            await end(self._link, seen, woken=self._woken)


async def end(link: SpawnerLink, seen: Record, *, woken: asyncio.Event) -> None:
    """Stop the process of `seen`, wait for its end and forget its record; `woken` is set at each change of it."""

    def ended() -> bool:
        latest = link.record(seen.key, seen.attempt)
        return latest is None or latest.phase == "exited"

    if not ended():
        link.listen(seen.key, woken.set)
        await link.stop(seen.key, seen.attempt, reason="evict")
    while not ended():
        woken.clear()
        await woken.wait()
    link.unlisten(seen.key)
    await link.forget(seen.key, seen.attempt)
