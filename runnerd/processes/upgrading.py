"""Replace a spawner that differs from the installed one once it has no run, after an upgrade of runnerd."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from runnerd.log.log import Log
from runnerd.processes.link import SpawnerLink
from runnerd.processes.protocol import Hello
from runnerd.spawner.child.users import AllowedUsers

_CHECK_PERIOD_S = 10.0


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


async def run_spawner_upgrade(*, link: SpawnerLink, wanted: WantedSpawner, log: Log) -> None:
    """End a spawner that differs and has no run; systemd or the link then starts the next one."""
    retired: str | None = None  # the difference retired last: if the next spawner has it again, that is what is there
    while True:
        await link.wait_until_connected()
        hello = link.hello
        idle = not any(record.phase != "exited" for record in link.records())
        why = wanted.difference(hello) if hello is not None else None
        if hello is not None and why not in (None, retired) and idle and await link.retire():
            retired = why
            log.info("replacing the idle spawner", why=why, old=hello.version, new=wanted.version)
        await asyncio.sleep(_CHECK_PERIOD_S)
