"""Keep the daemon connected to the spawner: connect, or start a spawner, and reconnect after a loss.

The link's records are what the spawner last sent. Requests wait while the connection is lost and are then repeated,
which is safe because each is idempotent by (key, attempt). No process is ended except by `stop`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from runnerd.core.errors import SpawnerError
from runnerd.core.exit_words import exit_words
from runnerd.core.problems import Problems
from runnerd.core.process import LaunchSpec
from runnerd.log.alerts import Alert
from runnerd.log.log import Log
from runnerd.processes.client import SpawnerClient
from runnerd.processes.protocol import Hello, Record, boot_id

T = TypeVar("T")
_RECONNECT_DELAY_S = 1.0

OnRecord = Callable[[Record], None]
OnLost = Callable[[], None]


def describe_end(record: Record | None, *, memory_max_bytes: int | None = None) -> str:
    """Say how a process ended, from what `SpawnerLink.run_to_end` returned; `memory_max_bytes` is its spec's limit."""
    if record is None:
        return "the spawner was lost"
    return record.error.message if record.error else exit_words(record.exit, memory_max_bytes=memory_max_bytes)


class SpawnerLink:
    """The connection to the spawner, and the spawner's records.

    `make_client` makes the client of one connection. `start_spawner` starts a spawner, unless a service manager does,
    and returns once it serves.
    """

    def __init__(
        self,
        *,
        make_client: Callable[[OnRecord, OnLost], SpawnerClient],
        start_spawner: Callable[[], Awaitable[None]],
        problems: Problems,
        log: Log,
    ) -> None:
        self._make_client = make_client
        self._start_spawner = start_spawner
        self._log = log
        self._client: SpawnerClient | None = None
        self._connected = asyncio.Event()
        self._lost = asyncio.Event()
        self._spawning = 0  # spawn requests without an answer
        self._not_retiring = asyncio.Event()
        self._not_retiring.set()
        self._records: dict[tuple[str, int], Record] = {}
        self._listeners: dict[str, Callable[[], None]] = {}
        self.problem: str | None = None
        problems.register_text(lambda: self.problem)
        self._boot_id: str | None = None
        self._missed = False  # the log says that there is no connection

    @property
    def boot_id(self) -> str:
        """The boot id of the spawner's processes: from the spawner's hello, or as this process reads it.

        The two can differ: in a container another file may be mounted over the kernel's, which a hardened daemon, in a
        mount namespace of its own, does not see.
        """
        return self._boot_id or boot_id()

    @property
    def connected(self) -> bool:
        """Whether the spawner is connected now."""
        return self._connected.is_set()

    @property
    def hello(self) -> Hello | None:
        """The spawner's hello; None while not connected."""
        return self._client.hello if self._client is not None and self.connected else None

    def record(self, key: str, attempt: int) -> Record | None:
        """Return the last record of this attempt; None when the spawner has none."""
        return self._records.get((key, attempt))

    def records(self) -> list[Record]:
        """Return all records."""
        return list(self._records.values())

    def add_listener(self, key: str, wake: Callable[[], None]) -> None:
        """Call `wake` whenever a record of `key` changes, and after each reconnection; one listener a key."""
        self._listeners[key] = wake

    def remove_listener(self, key: str) -> None:
        """Drop the listener of `key`, if there is one."""
        self._listeners.pop(key, None)

    async def wait_until_connected(self) -> None:
        """Wait until the spawner is connected."""
        await self._connected.wait()

    async def run(self) -> None:
        """Connect, wait until the connection is lost, connect again; for ever."""
        while True:
            await self._connect()
            await self._lost.wait()
            self._connected.clear()
            self._missed = True
            self._log.warning("the connection to the spawner is lost; its runs go on", alert=Alert.SPAWNER_LOST)

    async def _connect(self) -> None:
        while True:
            if self._client is not None:
                await self._client.close()  # it may be slow and not dead, and two connections deliver each record twice
                self._client = None
            self._lost.clear()
            client = self._make_client(self._on_record, self._lost.set)
            try:
                records = await self._connect_or_start(client)
            except SpawnerError as error:
                await client.close()
                if str(error) != self.problem:
                    self._missed = True
                    self._log.error("cannot reach the spawner", why=str(error), alert=Alert.SPAWNER_LOST)
                self.problem = str(error)
                await asyncio.sleep(_RECONNECT_DELAY_S)
                continue
            self.problem = None
            self._client = client
            self._boot_id = client.hello.boot_id if client.hello is not None else None
            self._records = {(record.key, record.attempt): record for record in records}
            self._connected.set()
            if self._missed:
                self._missed = False
                self._log.info("connected to the spawner again")
            for wake in list(self._listeners.values()):
                wake()
            return

    async def _connect_or_start(self, client: SpawnerClient) -> list[Record]:
        try:
            return await client.connect()
        except SpawnerError as error:
            if error.refused:
                raise
        await self._start_spawner()
        return await client.connect()

    def _on_record(self, record: Record) -> None:
        self._records[(record.key, record.attempt)] = record
        wake = self._listeners.get(record.key)
        if wake is not None:
            wake()

    async def _ask(self, request: Callable[[SpawnerClient], Awaitable[T]]) -> T:
        """Send a request, again on each new connection until an answer comes. Raises SpawnerError when refused."""
        while True:
            await self._connected.wait()
            client = self._client
            assert client is not None
            try:
                return await request(client)
            except SpawnerError as error:
                if error.refused:
                    raise
                self._connected.clear()
                self._lost.set()

    async def spawn(self, spec: LaunchSpec) -> Record:
        """Start a process; return its record, also when it was started before. Raises SpawnerError when refused."""
        record = await self._ask_to_spawn(spec)
        known = self._records.get((record.key, record.attempt))
        if known is None or known.phase == "starting":
            # An event may have overtaken the reply: a known exit must not be replaced by the older record.
            self._records[(record.key, record.attempt)] = record
        return self._records[(record.key, record.attempt)]

    async def _ask_to_spawn(self, spec: LaunchSpec) -> Record:
        # A spawner of older code may start the run after its answer to `retire`, and end: its exit status is lost.
        await self._not_retiring.wait()
        self._spawning += 1
        try:
            return await self._ask(lambda client: client.spawn(spec))
        finally:
            self._spawning -= 1

    async def run_to_end(self, spec: LaunchSpec) -> Record | None:
        """Start a process, wait for its end and return its record; None when a new spawner does not know the process.

        The spawner keeps the record until `forget`. Raises SpawnerError when refused.
        """
        changed = asyncio.Event()
        self.add_listener(spec.key, changed.set)
        try:
            record: Record | None = await self.spawn(spec)
            while record is not None and record.phase != "exited":
                await changed.wait()
                changed.clear()
                if self.connected:
                    record = self.record(spec.key, spec.attempt)
            return record
        finally:
            self.remove_listener(spec.key)

    async def stop(
        self, key: str, attempt: int, *, reason: str, timeout_s: float | None = None, prefect_intent: str | None = None
    ) -> None:
        """Stop a process, as `SpawnerClient.stop` says."""
        await self._ask(
            lambda client: client.stop(
                key=key, attempt=attempt, reason=reason, timeout_s=timeout_s, prefect_intent=prefect_intent
            )
        )

    async def forget(self, key: str, attempt: int) -> None:
        """Drop the record of an ended process; nothing happens for an unknown one. A refusal is logged."""
        try:
            await self._ask(lambda client: client.forget(key=key, attempt=attempt))
        except SpawnerError as error:
            self._log.warning("cannot drop a record of the spawner", key=key, attempt=attempt, why=str(error))
        self._records.pop((key, attempt), None)

    async def retire(self) -> bool:
        """End a spawner that has no live run; False when it stays. `run` then connects to the next spawner.

        False, without a request, while `spawn` waits for an answer; a later `spawn` waits for the answer to this one.
        """
        if self._spawning:
            return False
        client = self._client
        self._not_retiring.clear()
        try:
            return client is not None and await client.retire()
        except SpawnerError:
            return False  # the spawner is too old for this request, or ended a moment before
        finally:
            self._not_retiring.set()

    async def close(self) -> None:
        """Close the connection."""
        self._connected.clear()
        if self._client is not None:
            await self._client.close()
            self._client = None
