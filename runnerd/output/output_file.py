"""A run's output file, which the run may still be writing to, a block at a time.

Invariants: the file is never held open between two blocks, so a reader that leaves or a file that is replaced costs
nothing; a front that was punched out to keep the file capped is skipped; a file that was truncated is read from its
beginning.
"""

from __future__ import annotations

import errno
import os

from runnerd.system.regular_files import open_regular

BLOCK = 256 * 2**10


def read_block(path: str, offset: int) -> tuple[bytes, int]:
    """The next block of the file, b"" at its end or when there is no file, and the offset behind it.

    Raises OSError when there is a file and it cannot be read.
    """
    try:
        descriptor = _open(path)
    except FileNotFoundError:
        return b"", offset
    try:
        size = os.fstat(descriptor).st_size
        offset = _skip_hole(descriptor, offset if offset <= size else 0, size)
        block = os.pread(descriptor, BLOCK, offset)
    finally:
        os.close(descriptor)
    # The edge of a hole is page-aligned at best, and one may be punched between the two calls above.
    return block.lstrip(b"\0"), offset + len(block)


def is_readable(path: str) -> bool:
    """Whether the file is there. Raises OSError when it is and cannot be read."""
    try:
        os.close(_open(path))
    except FileNotFoundError:
        return False
    return True


def _open(path: str) -> int:
    return open_regular(path, os.O_RDONLY | os.O_NOFOLLOW)


def _skip_hole(descriptor: int, offset: int, size: int) -> int:
    try:
        return os.lseek(descriptor, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return max(size, offset)  # nothing but a hole from here to the end
