"""Opens only regular files, for paths that users name: reading a FIFO or a device may hang or never end."""

from __future__ import annotations

import errno
import os
import stat


def open_regular(path: str, flags: int) -> int:
    """Open a regular file and return its descriptor; usable as `opener=`. Raises OSError, EINVAL for any other kind.

    O_NONBLOCK, because opening a FIFO without a writer would block the whole daemon.
    """
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", path)
    return descriptor
