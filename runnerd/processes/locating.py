"""Find the host's spawner: connect to its socket, or start one where no service manager does."""

from __future__ import annotations

import os
from collections.abc import Callable

from runnerd.core.errors import SpawnerError
from runnerd.processes.client import SpawnerClient, start_spawner
from runnerd.processes.protocol import Record
from runnerd.system.paths import Paths


class SpawnerLocation:
    """The socket and directories of the host's spawner; `users` is the list of users for a root spawner, if any."""

    def __init__(self, paths: Paths, *, users: str | None) -> None:
        self._paths = paths
        self._users = users

    def make_client(self, on_record: Callable[[Record], None], on_lost: Callable[[], None]) -> SpawnerClient:
        """Make a client for one connection."""
        return SpawnerClient(socket_path=self._paths.spawner_socket, on_record=on_record, on_lost=on_lost)

    async def start_spawner(self) -> None:
        """Start a spawner, and return once it serves. Raises SpawnerError, also where systemd must start it."""
        if self._paths.managed_spawner is not None:
            raise SpawnerError(
                f"cannot reach the spawner at {self._paths.managed_spawner}: no answer, and systemd is to start it;"
                " see systemctl status runnerd-spawner"
            )
        await start_spawner(
            socket_path=self._paths.spawner_socket,
            runtime_dir=self._paths.spawner_dir,
            owner=os.geteuid(),
            log_file=os.path.join(self._paths.log, "spawner.log"),
            users=self._users if os.geteuid() == 0 else None,
        )
