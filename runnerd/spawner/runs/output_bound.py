"""Keep a run's output file within its size limit, at the cost of the oldest output.

The oldest part is replaced by a hole (fallocate): offsets stay valid for readers and the writer, and the disk space is
freed. On a file system without holes the file is truncated to 0; the run appends, and so goes on at the start.
"""

from __future__ import annotations

import ctypes
import errno
import os

_FALLOC_FL_KEEP_SIZE = 1
_FALLOC_FL_PUNCH_HOLE = 2
_BLOCK_BYTES = 4096


def trim_output(path: str, max_bytes: int, *, owner: int | None = None) -> bool:
    """Drop the oldest part of a file that uses more disk than `max_bytes`; return whether it did. Raises OSError.

    A file that does not belong to uid `owner`, where given, is refused: the path may have been replaced by a link to
    the file of another user.
    """
    fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        facts = os.fstat(fd)
        if owner is not None and facts.st_uid != owner:
            raise PermissionError(errno.EPERM, f"it belongs to uid {facts.st_uid}")
        if facts.st_blocks * 512 <= max_bytes:
            return False
        # Half of the limit stays, so that the file of a busy writer is not trimmed at every check.
        drop = (facts.st_size - max_bytes // 2) // _BLOCK_BYTES * _BLOCK_BYTES
        if drop > 0 and not _punch_hole(fd, drop):
            os.ftruncate(fd, 0)
        return drop > 0
    finally:
        os.close(fd)


def _punch_hole(fd: int, size: int) -> bool:
    mode = _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE
    fallocate = ctypes.CDLL(None, use_errno=True).fallocate64
    return bool(fallocate(fd, mode, ctypes.c_int64(0), ctypes.c_int64(size)) == 0)
