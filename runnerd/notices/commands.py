"""Runs the command of a notice through the spawner, as the user of the run.

Invariant: one attempt is one process, also when a daemon is replaced meanwhile: the next one waits for that process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable

from runnerd.core.errors import SpawnerError
from runnerd.core.notices import Notice
from runnerd.core.settings import RunSettings
from runnerd.launch.environment import Environments
from runnerd.launch.run_commands import NOTICE_PREFIX, notice_key, notice_spec
from runnerd.processes.command_words import failure_of
from runnerd.processes.link import SpawnerLink


class NoticeCommands:
    """Runs commands. `settings` are those of the run of a notice."""

    def __init__(
        self,
        *,
        link: SpawnerLink,
        environments: Environments,
        settings: Callable[[Notice], RunSettings],
        work_dir: str,
    ) -> None:
        self._link = link
        self._environments = environments
        self._settings = settings
        self._work_dir = work_dir

    def under_way(self, notice: Notice) -> bool:
        """Whether the spawner knows the process of the notice's latest attempt."""
        return self._link.record(notice_key(notice.id), notice.tries) is not None

    async def send(self, notice: Notice) -> str | None:
        """Run the command and wait for its end; return why it has failed, None when it has not."""
        run = self._settings(notice)
        environment = await self._environments.build(run)
        if isinstance(environment, str):
            return environment
        key = notice_key(notice.id)
        spec = notice_spec(
            run,
            notice.target.command,
            notice.document,
            key=key,
            attempt=notice.tries,
            environment=environment,
            output=os.path.join(self._work_dir, f"{key}.log"),
            timeout_s=notice.target.timeout_s,
        )
        try:
            seen = await self._link.run_to_end(spec)
        except SpawnerError as error:
            return str(error)
        return await failure_of(seen, spec)

    async def forget(self, notice: Notice) -> None:
        """Remove what the latest attempt has left; only after its outcome is in the journal."""
        key = notice_key(notice.id)
        await self._link.forget(key, notice.tries)
        with contextlib.suppress(OSError):
            await asyncio.to_thread(os.unlink, os.path.join(self._work_dir, f"{key}.log"))

    async def forget_others(self, pending: set[str]) -> None:
        """Have the spawner forget the ended commands of notices that are not `pending` any more."""
        for seen in self._link.records():
            its_id = seen.key.removeprefix(NOTICE_PREFIX)
            if seen.key.startswith(NOTICE_PREFIX) and seen.phase == "exited" and its_id not in pending:
                await self._link.forget(seen.key, seen.attempt)
