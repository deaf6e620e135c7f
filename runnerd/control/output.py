"""A run's output file, from the file straight to a reader, while the run may still be writing to it.

Invariants: the file is only read off the loop, a block at a time, and never held open between two blocks, so a
reader that leaves or a file that is replaced costs nothing; a front that was punched out to keep the file capped is
skipped; a file that was truncated, and the file of a new attempt, is read from its beginning.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import AsyncGenerator

from runnerd.control.events import DONE
from runnerd.control.host import Host

BLOCK = 256 * 2**10
LOOK_S = 0.2  # while somebody follows: nothing tells us that a file of somebody else's process grew


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


async def follow_output(host: Host, run_id: str, *, offset: int, follow: bool) -> AsyncGenerator[bytes, None]:
    """The output from `offset` on; with `follow` until the run's process is over and all of it was sent."""
    path = host.output(run_id)
    while True:
        over = process_over(host, run_id)  # before reading: what it wrote until now is then read
        if (now := host.output(run_id)) != path:
            offset, path = 0 if path else offset, now
        while path is not None:
            before = offset
            block, offset = await asyncio.to_thread(read_block, path, offset)
            if block:
                yield block
            elif offset == before:
                break
        if over or not follow:
            return
        await asyncio.sleep(LOOK_S)


def process_over(host: Host, run_id: str) -> bool:
    """Whether nothing of the run can write any more: while `reporting`, only the API is still to be told."""
    document = host.run_document(run_id)
    return document is None or document["phase"] in ("reporting", DONE)


def _open(path: str) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", path)
    return descriptor


def _skip_hole(descriptor: int, offset: int, size: int) -> int:
    try:
        return os.lseek(descriptor, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return max(size, offset)  # nothing but a hole from here to the end
