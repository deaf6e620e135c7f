"""Keep a process running for as long as it is wanted, such as a Prefect worker: start, watch, restart, replace it.

* The process is the spawner's child: it outlives the daemon, and the next daemon finds the process by its key.
* The key changes with what the process is started from. A process with an older key is stopped as soon as the spec for
  its successor is ready.
* Cancelling `run` leaves the process running; only `stop` ends it.
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
from runnerd.processes.link import SpawnerLink, describe_end
from runnerd.processes.protocol import Record


class ProcessState(StrEnum):
    WAITING = "waiting"  # not wanted, or no spawner
    PREPARING = "preparing"  # its spec is being made
    RUNNING = "running"
    RESTARTING = "restarting"  # it ended, and is started again after a delay
    FAILED = "failed"  # it cannot be started, and is tried again after a delay


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartDelays:
    """The seconds before a restart: `first_s`, doubled after each early end, at most `max_s`."""

    first_s: float = 1.0
    max_s: float = 60.0
    steady_s: float = 60.0  # a process that ran this long counts as steady: the next delay is `first_s` again


@dataclass(frozen=True, slots=True)
class Unready:
    """Why the process does not run, and the bounds in seconds for the delay before the next start."""

    reason: str
    min_delay_s: float = 0.0
    max_delay_s: float = 60.0


class LongLived:
    """Keeps one process running.

    `wanted_key()`: the key of the process to run now, None while none is wanted.
    `owns(key)`: True for any key of this process, past or present.
    `make_spec()`: awaited before each start; key and attempt of the spec are replaced.
    `before_start()`: called right before each start.
    `on_running(record, started)`: called when the process runs; `started` is False for one that was found running.
    `on_failure(reason, delay_s)`: called when the process ended or cannot be started, with the delay before a retry.
    """

    def __init__(
        self,
        *,
        link: SpawnerLink,
        wanted_key: Callable[[], str | None],
        owns: Callable[[str], bool],
        make_spec: Callable[[], Awaitable[LaunchSpec | Unready]],
        on_running: Callable[[Record, bool], None],
        on_failure: Callable[[str, float], None],
        before_start: Callable[[], None] = lambda: None,
        delays: RestartDelays | None = None,
    ) -> None:
        self._link = link
        self._wanted_key = wanted_key
        self._owns = owns
        self._make_spec = make_spec
        self._on_running = on_running
        self._on_failure = on_failure
        self._before_start = before_start
        self._delays = delays or RestartDelays()
        self._changed = asyncio.Event()  # a record of the process changed, or `wake` was called
        self._woken = asyncio.Event()  # `wake` was called
        self._unwanted = asyncio.Event()  # no process is wanted, and those there were have ended
        self._stopping = False
        self._attempts: dict[str, int] = {}  # the last attempt of each key
        self._running_since: float | None = None  # by the loop's clock: when the process was started or found
        self._start_failed = False
        self.state = ProcessState.WAITING
        self.restarts = 0
        self.problem: str | None = None  # why the process ended or cannot be started; None once it runs steadily

    def wake(self) -> None:
        """Read `wanted_key` again, or retry a failed start without the rest of its delay."""
        self._changed.set()
        self._woken.set()

    async def wait_until_unwanted(self) -> None:
        """Wait until no process is wanted, and the last one has ended."""
        await self._unwanted.wait()

    def find_live_record(self) -> Record | None:
        """Return the record of the running process, the newest while one is replaced; None when none runs."""
        live = [record for record in self._records() if record.phase != "exited"]
        return max(live, key=lambda record: record.started_at, default=None)

    async def run(self) -> None:
        """Keep the process running until `stop`."""
        backoff = Backoff(first_s=self._delays.first_s, cap_s=self._delays.max_s, jitter=0.0)
        while not self._stopping:
            self._running_since = None
            failure = await self._run_once()
            if failure is None or self._is_steady():
                backoff.reset()
            if failure is None:
                continue
            delay_s = backoff.next_s(at_least_s=failure.min_delay_s, cap_s=failure.max_delay_s)
            self.problem, self._start_failed = failure.reason, self.state is ProcessState.FAILED
            self._on_failure(failure.reason, delay_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._woken.wait()

    async def _run_once(self) -> Unready | None:
        """Start the process or find it running, and wait for its end; None when its key is not wanted any more."""
        await self._link.wait_until_connected()
        self._woken.clear()
        key = self._wanted_key()
        if key is None:
            self.state, self.problem = ProcessState.WAITING, None
            await self._stop_processes(self._records())
            self._unwanted.set()
            await self._wait_until_wanted()
            self._unwanted.clear()
            return None
        live = [record for record in self._records() if record.key == key and record.phase != "exited"]
        if live:
            record = max(live, key=lambda record: record.attempt)
            await self._stop_processes(other for other in self._records() if other is not record)
        else:
            started = await self._start(key)
            if not isinstance(started, Record):
                return started
            record = started
        self._attempts[key] = record.attempt
        self._running_since = asyncio.get_running_loop().time()
        if self._start_failed:
            self.problem, self._start_failed = None, False  # the problem was that the start failed
        self.state = ProcessState.RUNNING
        self._on_running(record, not live)
        return await self._wait_for_end(record)

    async def _wait_until_wanted(self) -> None:
        while self._wanted_key() is None and not self._stopping:
            self._changed.clear()
            await self._changed.wait()

    async def _start(self, key: str) -> Record | Unready | None:
        """Start the process; None when its key is not wanted any more, since `make_spec` can take minutes."""
        self.state = ProcessState.PREPARING if self._attempts.get(key) is None else ProcessState.RESTARTING
        spec = await self._make_spec()
        if self._stopping or self._wanted_key() != key:
            return None
        if isinstance(spec, Unready):
            self.state = ProcessState.FAILED
            return spec
        older = [*self._records()]
        attempts = [self._attempts.get(key, 0), *(record.attempt for record in older if record.key == key)]
        await self._stop_processes(older)
        self.restarts += key in self._attempts
        self._before_start()
        try:
            return await self._link.spawn(replace(spec, key=key, attempt=max(attempts) + 1))
        except SpawnerError as error:
            self.state = ProcessState.FAILED
            return self._make_unready(str(error))

    async def _wait_for_end(self, record: Record) -> Unready | None:
        self._link.add_listener(record.key, self._changed.set)  # a change before this is in the link's record
        while not self._stopping and self._wanted_key() == record.key:
            self._changed.clear()
            latest = self._link.record(record.key, record.attempt)
            if latest is None and self._link.connected:
                self.state = ProcessState.RESTARTING
                return self._make_unready("was lost")
            if latest is not None and latest.phase == "exited":
                self.state = ProcessState.RESTARTING
                return self._make_unready(describe_end(latest))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if self.problem is None else self._delays.steady_s):
                    await self._changed.wait()
            if self._is_steady():
                self.problem = None
        return None

    def _make_unready(self, reason: str) -> Unready:
        return Unready(reason, max_delay_s=self._delays.max_s)

    def _is_steady(self) -> bool:
        loop = asyncio.get_running_loop()
        return self._running_since is not None and loop.time() - self._running_since >= self._delays.steady_s

    # --- stopping ---------------------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Stop the process, also one that an earlier daemon started, and end `run`."""
        self._stopping = True
        self.wake()
        await self._stop_processes(self._records())
        self.state = ProcessState.WAITING

    def _records(self) -> list[Record]:
        return [record for record in self._link.records() if self._owns(record.key)]

    async def _stop_processes(self, records: Iterable[Record]) -> None:
        for record in list(records):
            await stop_and_forget(self._link, record, changed=self._changed)


async def stop_and_forget(link: SpawnerLink, record: Record, *, changed: asyncio.Event) -> None:
    """Stop a process, wait for its end and drop its record; the link sets `changed` when the record changes."""

    def has_ended() -> bool:
        latest = link.record(record.key, record.attempt)
        return latest is None or latest.phase == "exited"

    if not has_ended():
        link.add_listener(record.key, changed.set)
        await link.stop(record.key, record.attempt, reason="evict")
    while not has_ended():
        changed.clear()
        await changed.wait()
    link.remove_listener(record.key)
    await link.forget(record.key, record.attempt)
