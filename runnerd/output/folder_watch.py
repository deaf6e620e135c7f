"""Watches a folder with inotify and calls back when any file in it was written to.

Invariant: the events say only that something was written, not where, so an overflow of inotify's queue loses nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable

_IN_MODIFY = 0x2
_READ_BYTES = 64 * 2**10
_READS_PER_DRAIN = 64  # flows may write as fast as we read; events left over call back again


class FolderWatch:
    """Watches the files of one folder, without subfolders. Raises OSError when the kernel has no inotify watch left."""

    def __init__(self, folder: str) -> None:
        import ctypes  # here, because a daemon that forwards nothing never needs the memory it takes

        libc = ctypes.CDLL(None, use_errno=True)

        def checked(result: int) -> int:
            if result < 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), folder)
            return result

        self._fd = checked(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        try:
            checked(libc.inotify_add_watch(self._fd, os.fsencode(folder), _IN_MODIFY))
        except OSError:
            os.close(self._fd)
            raise

    def arm(self, changed: Callable[[], None]) -> None:
        """Call `changed` once, as soon as a file was written to since the last `drain`."""
        loop = asyncio.get_running_loop()

        def call_once() -> None:
            # No reader until the next `arm`: a flow that writes all the time must not keep the event loop busy.
            loop.remove_reader(self._fd)
            changed()

        loop.add_reader(self._fd, call_once)

    def drain(self) -> None:
        """Discard the events of all writes until now."""
        with contextlib.suppress(BlockingIOError):
            for _ in range(_READS_PER_DRAIN):
                os.read(self._fd, _READ_BYTES)

    def close(self) -> None:
        """Stop watching; needs the running event loop."""
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)
