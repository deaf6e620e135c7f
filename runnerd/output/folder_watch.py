"""Tells when a file in a folder was written to, by the kernel's inotify; which one, it does not tell.

Invariant: events are only counted as "something", so a queue that overflows loses nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable

_IN_MODIFY = 0x2
_DRAIN_BYTES = 64 * 2**10
_DRAINS = 64  # flows may write as fast as we read; what is left is told again


class FolderWatch:
    """One folder, not what is below it. Raises OSError where the kernel has no watch left for us."""

    def __init__(self, folder: str) -> None:
        import ctypes  # here, because a daemon that forwards nothing never needs it

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

        def tell() -> None:
            # Off until it is armed again: a flow that writes all the time must not keep the loop busy.
            loop.remove_reader(self._fd)
            changed()

        loop.add_reader(self._fd, tell)

    def drain(self) -> None:
        """Take note of all that was written until now."""
        with contextlib.suppress(BlockingIOError):
            for _ in range(_DRAINS):
                os.read(self._fd, _DRAIN_BYTES)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)
