"""Replace a spawner that differs from the installed one once it has no run, after an upgrade of runnerd."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

from runnerd.log.log import Log
from runnerd.processes.link import SpawnerLink
from runnerd.processes.protocol import Hello
from runnerd.spawner.child.users import AllowedUsers

_CHECK_PERIOD_S = 10.0
_SERVER_PERIOD_S = 3600.0  # between two stops of the server, in case the spawner does not end after the first


class Server(Protocol):
    """A long-lived process under the spawner, with `key`, that may be stopped for the moment of a replacement."""

    @property
    def key(self) -> str: ...

    def stopped(self) -> contextlib.AbstractAsyncContextManager[None]: ...


class Spares(Protocol):
    """Processes under the spawner that may be ended for its replacement, because they are only there to save time."""

    def knows(self, key: str) -> bool: ...

    async def clear(self, *, why: str) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedSpawner:
    """Describes the spawner that belongs to this daemon.

    `build`: of the spawner's code when this daemon started, None when it could not be read. `users`: as whom it is to
    start flows, None where the daemon does not know.
    """

    version: str
    build: str | None
    users: AllowedUsers | None

    def difference(self, hello: Hello) -> str | None:
        """Say how the spawner differs; None when it does not."""
        if hello.version != self.version:
            return f"version {hello.version} differs from runnerd's {self.version}"
        if self.build is not None and hello.build != self.build:
            return f"its code (build {hello.build or 'unknown'}) is not the installed one (build {self.build})"
        return self.difference_of_users(hello)

    def users_of(self, hello: Hello | None) -> AllowedUsers | None:
        """Return as whom the spawner starts flows: what its hello says, and before it the daemon's own list."""
        return self.users if hello is None else hello.users

    def difference_of_users(self, hello: Hello | None) -> str | None:
        """Say how the lists of users differ, where both are known."""
        if self.users is None or hello is None or hello.users is None or self.users.same_list(hello.users):
            return None
        listed, wanted = hello.users.describe(), self.users.describe()
        return f"the spawner starts processes as {listed}, but RUNNERD_FLOW_USERS of runnerd says {wanted}"


class SpawnerUpgrade:
    """Ends a spawner that differs and is idle; systemd or the link then starts the next one.

    `server`, which is always live, is stopped for that, while `has_runs` says that there is no run, in any phase: what
    a run reports goes to the server. `spares` are ended.
    """

    def __init__(
        self,
        *,
        link: SpawnerLink,
        wanted: WantedSpawner,
        server: Server | None,
        spares: Spares,
        has_runs: Callable[[], bool],
        log: Log,
    ) -> None:
        self._link = link
        self._wanted = wanted
        self._server = server
        self._spares = spares
        self._has_runs = has_runs
        self._log = log
        # The difference retired last: if the next spawner has it again, that is what is there.
        self._retired: str | None = None
        self._server_from = 0.0  # by the loop's clock: when the server may be stopped

    async def run(self) -> None:
        """Replace a spawner that differs whenever that is possible; never returns."""
        while True:
            await self._link.wait_until_connected()
            hello = self._link.hello
            why = self._wanted.difference(hello) if hello is not None else None
            if hello is not None and why not in (None, self._retired) and await self._retire():
                self._retired = why
                self._log.info("replacing the idle spawner", why=why, old=hello.version, new=self._wanted.version)
            await asyncio.sleep(_CHECK_PERIOD_S)

    async def _retire(self) -> bool:
        there = {record.key for record in self._link.records() if record.phase != "exited"}
        live = {key for key in there if not self._spares.knows(key)}
        if live and self._keeps(live):
            return False
        if live != there:
            await self._spares.clear(why="the spawner is replaced")
        if not live:
            return await self._link.retire()
        assert self._server is not None
        self._server_from = asyncio.get_running_loop().time() + _SERVER_PERIOD_S
        self._log.info("stopping the embedded Prefect server for a moment, to replace the spawner")
        async with self._server.stopped():
            return await self._link.retire()

    def _keeps(self, live: Collection[str]) -> bool:
        """Whether one of these processes keeps the spawner from being replaced now."""
        server = self._server
        if server is None or set(live) != {server.key} or self._has_runs():
            return True
        return asyncio.get_running_loop().time() < self._server_from
