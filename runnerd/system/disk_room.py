"""Checks that there is room on disk for what each run needs: its record at the spawner and its output file.

Invariant: the file systems are asked off the event loop, and each for a bounded time; `problem` answers from memory.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from functools import partial

from runnerd.files.bounded_calls import BoundedCalls, Unanswered
from runnerd.log.log import Log
from runnerd.system.containment import Containment

MEASURE_EVERY_S = 5.0  # a run that is claimed meanwhile on a full disk waits for room with its start
MEASURE_IDLE_EVERY_S = 30.0  # each measure starts threads, which would be most of the work of an idle daemon
_FREE_BYTES = 1 << 20  # a record has about 1 kB; a flow's first lines and what others write meanwhile need more
_FREE_FILES = 16


class DiskRoom:
    """The room on the file systems of `directories`, as of the last measure."""

    def __init__(
        self,
        *,
        directories: Sequence[str],
        calls: BoundedCalls,
        log: Log,
        statvfs: Callable[[str], os.statvfs_result] = os.statvfs,
    ) -> None:
        self._directories = directories
        self._calls = calls
        self._statvfs = statvfs
        self._contained = Containment(log=log, loop="disk room")
        self._problem: str | None = None

    def problem(self) -> str | None:
        """Return why a new run could not be recorded, None when it can be."""
        return self._problem

    async def run(self, *, busy: Callable[[], bool]) -> None:
        """Measure for ever: more often while the host is `busy`, or has no room."""
        while True:
            with self._contained.item("measure"):
                await self.measure()
            await asyncio.sleep(MEASURE_EVERY_S if self._problem or busy() else MEASURE_IDLE_EVERY_S)

    async def measure(self) -> None:
        """Measure once."""
        found = await asyncio.gather(*(self._measure(directory) for directory in self._directories))
        self._problem = next((problem for problem in found if problem is not None), None)

    async def _measure(self, directory: str) -> str | None:
        cannot = f"cannot record new runs in {directory}"
        try:
            found = await self._calls.call(directory, partial(self._statvfs, directory))
        except OSError:
            return None  # the spawner or the output folder reports that better
        if isinstance(found, Unanswered):
            return f"{cannot}: its file system {found.words}; mend that disk or mount"
        free = found.f_bavail * found.f_frsize
        if found.f_blocks and free < _FREE_BYTES:
            return f"{cannot}: {free // 1024} kB are free; make room on its filesystem"
        if found.f_files and found.f_favail < _FREE_FILES:
            return f"{cannot}: its filesystem can have no more files; delete some"
        return None
