"""Checks that there is room on disk for what each run needs: its record at the spawner and its output file."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

_FREE_BYTES = 1 << 20  # a record has about 1 kB; a flow's first lines and what others write meanwhile need more
_FREE_FILES = 16


class DiskRoom:
    """Looks at the filesystems of `directories` whenever it is asked, which takes microseconds."""

    def __init__(self, *, directories: Sequence[str], statvfs: Callable[[str], os.statvfs_result] = os.statvfs) -> None:
        self._directories = directories
        self._statvfs = statvfs

    def problem(self) -> str | None:
        """Return why a new run could not be recorded, None when it can be."""
        for directory in self._directories:
            try:
                found = self._statvfs(directory)
            except OSError:
                continue  # the spawner or the output folder reports that better
            free, cannot = found.f_bavail * found.f_frsize, f"cannot record new runs in {directory}"
            if found.f_blocks and free < _FREE_BYTES:
                return f"{cannot}: {free // 1024} kB are free; make room on its filesystem"
            if found.f_files and found.f_favail < _FREE_FILES:
                return f"{cannot}: its filesystem can have no more files; delete some"
        return None
