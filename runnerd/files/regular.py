"""Opens and reads regular files only: a path may have been replaced by a FIFO, a device, a directory or a huge file.

Invariants: opening never blocks on what is no regular file; no more than the stated maximum is held in memory. The
disk itself may still hang: call these functions through BoundedCalls, never in the event loop.
"""

from __future__ import annotations

import errno
import os
import stat


def open_regular(path: str, flags: int = os.O_RDONLY) -> int:
    """Open the file at `path`, as an `opener` for open(). Raises OSError, also when it is not a regular file.

    O_NONBLOCK, because opening a FIFO without a writer would block the whole daemon.
    """
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def read_regular(path: str, *, max_bytes: int, flags: int = os.O_RDONLY) -> bytes:
    """Read the whole file. Raises OSError, also for a file that is not regular or has more than `max_bytes`."""
    descriptor = open_regular(path, flags)
    try:
        if os.fstat(descriptor).st_size > max_bytes:  # refused before any of a sparse file is read
            raise _too_large(path, max_bytes)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(max_bytes + 1)  # it may grow meanwhile, and files of /proc have no size
    finally:
        os.close(descriptor)
    if len(data) > max_bytes:
        raise _too_large(path, max_bytes)
    return data


def read_start(path: str, *, max_bytes: int, flags: int = os.O_RDONLY) -> bytes:
    """Read the first `max_bytes` of the file. Raises OSError, also for a file that is not regular."""
    descriptor = open_regular(path, flags)
    try:
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(max_bytes)
    finally:
        os.close(descriptor)


def _too_large(path: str, max_bytes: int) -> OSError:
    return OSError(errno.EFBIG, f"larger than {max_bytes // 1024} KiB", path)
