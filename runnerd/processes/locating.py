"""Where this host's spawner is, and how it comes to be there."""

from __future__ import annotations

import os
from collections.abc import Callable

from runnerd.core.errors import SpawnerError
from runnerd.processes.client import SpawnerClient, start_spawner
from runnerd.processes.protocol import Record
from runnerd.system.paths import Paths


class SpawnerAt:
    """The spawner of these directories."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    def client(self, on_record: Callable[[Record], None], on_lost: Callable[[], None]) -> SpawnerClient:
        """For one connection."""
        return SpawnerClient(socket_path=self._paths.spawner_socket, on_record=on_record, on_lost=on_lost)

    async def start(self) -> None:
        """Start one of our own, unless that is somebody else's to do. Raises SpawnerError."""
        if self._paths.managed_spawner is not None:
            raise SpawnerError(
                f"the spawner does not answer at {self._paths.managed_spawner}, which somebody else starts;"
                " see systemctl status runnerd-spawner"
            )
        await start_spawner(
            socket_path=self._paths.spawner_socket,
            runtime_dir=self._paths.spawner_dir,
            owner=os.geteuid(),
            log_file=os.path.join(self._paths.log, "spawner.log"),
        )
