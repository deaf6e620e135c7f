"""A process that is to run for as long as it is wanted: kept through the spawner, which owns it.

Invariants: it outlives the daemon, and the next one finds it by its key; its key changes with what it is started from,
so one that was started from something else is known as such, and ended politely once its successor can be started;
being cancelled detaches, only `stop` ends anything.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from runnerd.core.errors import SpawnerError
from runnerd.core.process import LaunchSpec
from runnerd.processes.link import SpawnerLink, how_it_ended
from runnerd.processes.protocol import Record


class State(StrEnum):
    WAITING = "waiting"  # for the spawner, or for somebody to want it
    PREPARING = "preparing"  # what it needs is being made
    RUNNING = "running"
    RESTARTING = "restarting"  # it ended, and is started again soon
    FAILED = "failed"  # it cannot be started, which is tried again


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """Before a restart: twice as long each time it ends early, from `first_s` to `cap_s`."""

    first_s: float = 1.0
    cap_s: float = 60.0
    steady_s: float = 60.0  # one that lived this long starts afresh in that count


WAITS = Waits()


@dataclass(frozen=True, slots=True)
class Unready:
    """Why it cannot be started now, and how far apart that is tried at least and at most."""

    words: str
    least_s: float = 0.0
    cap_s: float = 60.0


class LongLived:
    """Keeps one such process.

    `key` says under which key it is wanted now, None while it is not; `ours` knows every key it may have had.
    `spec` says what to start, and may take its time; key and attempt are filled in here.
    `starting` is called right before each start. `began` hears of it, and with False of one that was found running.
    `ended` hears in words how it ended or why it cannot be started, and in how many seconds it is tried again.
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
        self._woken = asyncio.Event()  # something is new about its processes, or `look` was called
        self._asked = asyncio.Event()
        self._stopping = False
        self._attempts: dict[str, int] = {}
        self._since: float | None = None  # by the loop's clock: when the latest was started or found
        self._failing = False
        self.state = State.WAITING
        self.restarts = 0
        self.problem: str | None = None  # how it ended or why it cannot be started, until it has run steadily again

    def look(self) -> None:
        """What `key` says may be another one, or what `spec` needs may be there now."""
        self._woken.set()
        self._asked.set()

    def alive(self) -> Record | None:
        """The process as the spawner last told of it; the latest, where one is being replaced."""
        found = [seen for seen in self._records() if seen.phase != "exited"]
        return max(found, key=lambda seen: seen.started_at, default=None)

    async def run(self) -> None:
        """Keep it running until it is stopped."""
        delay_s = self._waits.first_s
        while not self._stopping:
            self._since = None
            end = await self._once()
            if end is None:
                delay_s = self._waits.first_s
                continue
            if self._steady():
                delay_s = self._waits.first_s
            delay_s = min(max(delay_s, end.least_s), end.cap_s)
            self.problem, self._failing = end.words, self.state is State.FAILED
            self._ended(end.words, delay_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._asked.wait()
            delay_s *= 2

    async def _once(self) -> Unready | None:
        """Start it, or find it running, and wait for its end; None when another one is wanted, or none."""
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
            self.problem, self._failing = None, False  # it could not be started, and now it is
        self.state = State.RUNNING
        self._began(seen, not alive)
        return await self._watch(seen)

    async def _unwanted(self) -> None:
        while self._key() is None and not self._stopping:
            self._woken.clear()
            await self._woken.wait()

    async def _start(self, key: str) -> Record | Unready | None:
        """None when that is not wanted any more: what it needs may have taken long to make."""
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
        self._link.listen(seen.key, self._woken.set)  # what came before is in the record
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
        """End it, whoever started it; only when nobody needs it any more."""
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
    """Have it end politely, wait for that, and forget it; `woken` is what its listener sets meanwhile."""

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
