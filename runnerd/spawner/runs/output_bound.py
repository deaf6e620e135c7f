"""Keeps a run's output file within its bound without moving what is in it.

The oldest part becomes a hole: offsets stay, so readers and the writer are undisturbed, and the disk space is given
back. Where the file system has no holes the file is cut to nothing; the writer appends, so it starts afresh.
"""

from __future__ import annotations

import ctypes
import errno
import os

_FALLOC_FL_KEEP_SIZE = 1
_FALLOC_FL_PUNCH_HOLE = 2
_BLOCK_BYTES = 4096


def trim(path: str, max_bytes: int, *, owner: int | None = None) -> bool:
    """Drop the oldest part of the file when it uses more disk than `max_bytes`; whether it did. Raises OSError.

    Only a file of `owner`, where one is given: by now links may lead from its name to somebody else's.
    """
    fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        facts = os.fstat(fd)
        if owner is not None and facts.st_uid != owner:
            raise PermissionError(errno.EPERM, f"it belongs to uid {facts.st_uid}")
        if facts.st_blocks * 512 <= max_bytes:
            return False
        # Half of the bound stays, so that a busy writer is not trimmed at every look.
        drop = (facts.st_size - max_bytes // 2) // _BLOCK_BYTES * _BLOCK_BYTES
        if drop > 0 and not _punch(fd, drop):
            os.ftruncate(fd, 0)
        return drop > 0
    finally:
        os.close(fd)


def _punch(fd: int, size: int) -> bool:
    mode = _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE
    fallocate = ctypes.CDLL(None, use_errno=True).fallocate64
    return bool(fallocate(fd, mode, ctypes.c_int64(0), ctypes.c_int64(size)) == 0)
