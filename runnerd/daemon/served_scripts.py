"""Joins what the files of the configuration declare with what their scripts serve.

Invariant: what a script serves changes only when it was read again; the configuration of the files stays as it was read
by the last reload, also when a file has been edited since.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from runnerd.core.recording import Recorded
from runnerd.core.settings import Config, Deployment
from runnerd.deployments.script_reading import ScriptReading

Enter = Callable[[Config, Sequence[Deployment], dict[str, Recorded]], Config]


class ServedScripts:
    """Joins them: `want` the scripts of a configuration, `enter` what is known of them."""

    def __init__(self, *, reading: ScriptReading, enter: Enter) -> None:
        """`enter` joins the files' configuration, the deployments in force and what was read; it may take long."""
        self._reading = reading
        self._enter = enter
        self._of_files: Config | None = None
        self.unread = reading.unread
        self.changed = reading.changed
        self.entering = asyncio.Lock()  # held from `enter` until the result is in force, so that the newest comes last

    def want(self, of_files: Config, *, afresh: bool = False) -> None:
        """Read the scripts of this configuration from now on."""
        self._of_files = of_files
        self._reading.want(of_files.scripts, afresh=afresh)

    async def wait_until_entered(self) -> None:
        """Wait until what the scripts serve is known, and in force."""
        await self._reading.settled.wait()
        await self._reading.entered.wait()

    async def enter(self, in_force: Config) -> Config:
        """Return the configuration of the files with the deployments that its scripts serve."""
        if self._of_files is None or not self._of_files.scripts:
            return self._of_files or in_force
        joined = partial(self._enter, self._of_files, in_force.deployments, self._reading.outcomes())
        return await asyncio.to_thread(joined)

    def note_in_force(self) -> None:
        """Note that the result of the last `enter` is in force."""
        if not self.changed.is_set():
            self._reading.entered.set()
