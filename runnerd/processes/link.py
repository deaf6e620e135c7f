"""The daemon's standing connection to the spawner: found or started, kept, and found again when it is lost.

Invariants: what is known of processes is exactly what the spawner last said; requests wait through a lost
connection and are repeated, which is safe because each is idempotent by (key, attempt); nothing here ever ends a
process except an explicit stop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from runnerd.core.errors import SpawnerError
from runnerd.core.exit_words import exit_words
from runnerd.core.problems import Problems
from runnerd.core.process import LaunchSpec
from runnerd.log.alerts import Alert
from runnerd.log.log import Log
from runnerd.processes.client import SpawnerClient
from runnerd.processes.protocol import Hello, Record, boot_id

T = TypeVar("T")
_RETRY_S = 1.0


def how_it_ended(seen: Record | None, *, memory_max_bytes: int | None = None) -> str:
    """Say how a process ended that `SpawnerLink.complete` has run; `memory_max_bytes` is what its spec allowed."""
    if seen is None:
        return "the spawner was lost"
    return seen.error.message if seen.error else exit_words(seen.exit, memory_max_bytes=memory_max_bytes)


class Connect(Protocol):
    """Makes a client for one connection."""

    def __call__(self, on_record: Callable[[Record], None], on_lost: Callable[[], None]) -> SpawnerClient: ...


class SpawnerLink:
    """`start` starts a spawner of our own where nobody else (systemd) does, and returns when it answers."""

    def __init__(self, *, connect: Connect, start: Callable[[], Awaitable[None]], problems: Problems, log: Log) -> None:
        self._connect = connect
        self._start = start
        self._log = log
        self._client: SpawnerClient | None = None
        self._up = asyncio.Event()
        self._lost = asyncio.Event()
        self._records: dict[tuple[str, int], Record] = {}
        self._listeners: dict[str, Callable[[], None]] = {}
        self.problem: str | None = None
        problems.register_text(lambda: self.problem)
        self._boot_id: str | None = None

    @property
    def boot_id(self) -> str:
        """The boot that the processes of the spawner belong to: by its own word, or what we ourselves see.

        Not the same everywhere: in a container the kernel's file may be hidden by one of the container's, and a
        hardened daemon then looks below it.
        """
        return self._boot_id or boot_id()

    @property
    def connected(self) -> bool:
        return self._up.is_set()

    @property
    def hello(self) -> Hello | None:
        """What the spawner said of itself; None while not connected."""
        return self._client.hello if self._client is not None and self.connected else None

    def record(self, key: str, attempt: int) -> Record | None:
        """What the spawner last said of this attempt; None where it never heard of it."""
        return self._records.get((key, attempt))

    def records(self) -> list[Record]:
        return list(self._records.values())

    def listen(self, key: str, wake: Callable[[], None]) -> None:
        """Call `wake` whenever something is new about `key`, and after each reconnection."""
        self._listeners[key] = wake

    def unlisten(self, key: str) -> None:
        self._listeners.pop(key, None)

    async def wait_up(self) -> None:
        await self._up.wait()

    async def run(self) -> None:
        """Keep the connection for ever: connect, wait until it is lost, connect again."""
        while True:
            await self._connect_once()
            await self._lost.wait()
            self._up.clear()
            self._log.warning("the spawner's connection is lost; its runs go on", alert=Alert.SPAWNER_LOST)

    async def _connect_once(self) -> None:
        while True:
            if self._client is not None:
                await self._client.close()  # it may have been too slow only; two connections would tell all twice
                self._client = None
            self._lost.clear()
            client = self._connect(self._on_record, self._lost.set)
            try:
                records = await self._reach(client)
            except SpawnerError as error:
                await client.close()
                if str(error) != self.problem:
                    self._log.error("cannot reach the spawner", why=str(error), alert=Alert.SPAWNER_LOST)
                self.problem = str(error)
                await asyncio.sleep(_RETRY_S)
                continue
            self.problem = None
            self._client = client
            self._boot_id = client.hello.boot_id if client.hello is not None else None
            self._records = {(record.key, record.attempt): record for record in records}
            self._up.set()
            for wake in list(self._listeners.values()):
                wake()
            return

    async def _reach(self, client: SpawnerClient) -> list[Record]:
        try:
            return await client.connect()
        except SpawnerError as error:
            if error.refused:
                raise
        await self._start()
        return await client.connect()

    def _on_record(self, record: Record) -> None:
        self._records[(record.key, record.attempt)] = record
        wake = self._listeners.get(record.key)
        if wake is not None:
            wake()

    async def _ask(self, request: Callable[[SpawnerClient], Awaitable[T]]) -> T:
        """Send a request, again on each new connection until one answers. Raises SpawnerError if it refused."""
        while True:
            await self._up.wait()
            client = self._client
            assert client is not None
            try:
                return await request(client)
            except SpawnerError as error:
                if error.refused:
                    raise
                self._up.clear()
                self._lost.set()

    async def spawn(self, spec: LaunchSpec) -> Record:
        """Start it, or learn what became of it where it was started before."""
        record = await self._ask(lambda client: client.spawn(spec))
        known = self._records.get((record.key, record.attempt))
        if known is None or known.phase == "starting":
            # An event may have overtaken the reply: an exit that is already known must not be unlearnt.
            self._records[(record.key, record.attempt)] = record
        return self._records[(record.key, record.attempt)]

    async def complete(self, spec: LaunchSpec) -> Record | None:
        """Start it and wait until it has ended; its record is kept. None when the spawner has lost it.

        Raises SpawnerError if it refused.
        """
        changed = asyncio.Event()
        self.listen(spec.key, changed.set)
        try:
            seen: Record | None = await self.spawn(spec)
            while seen is not None and seen.phase != "exited":
                await changed.wait()
                changed.clear()
                if self.connected:
                    seen = self.record(spec.key, spec.attempt)
            return seen
        finally:
            self.unlisten(spec.key)

    async def stop(
        self, key: str, attempt: int, *, reason: str, timeout_s: float | None = None, tell: str | None = None
    ) -> None:
        """Have it ended; `tell` is what a child that listens hears of the reason first."""
        await self._ask(
            lambda client: client.stop(key=key, attempt=attempt, reason=reason, timeout_s=timeout_s, tell=tell)
        )

    async def forget(self, key: str, attempt: int) -> None:
        """Drop an ended attempt; one that is unknown is forgotten already."""
        try:
            await self._ask(lambda client: client.forget(key=key, attempt=attempt))
        except SpawnerError as error:
            self._log.warning("the spawner kept a record", key=key, attempt=attempt, why=str(error))
        self._records.pop((key, attempt), None)

    async def retire(self) -> bool:
        """Have a spawner without runs end; False when it stays. The next one is found as after any loss."""
        client = self._client
        try:
            return client is not None and await client.retire()
        except SpawnerError:
            return False  # too old to know of it, or it went a moment before

    async def close(self) -> None:
        self._up.clear()
        if self._client is not None:
            await self._client.close()
            self._client = None
