"""Reads a run's output file one block at a time, while the run may still be writing.

Invariants: the file is not held open between two blocks, so a slow reader holds no descriptor and a replaced file is
noticed; the hole that is punched at the file's front to bound its size is skipped; a truncated file is read from its
beginning.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

from runnerd.files.bounded_calls import BoundedCalls, Unanswered
from runnerd.files.regular import open_regular
from runnerd.output.attempts import AttemptOutput, find_outputs

BLOCK_BYTES = 256 * 2**10


def read_block(path: str, offset: int) -> tuple[bytes, int]:
    """Read the block at `offset`; return the block and the offset behind it.

    The block is b"" at the end of the file and when the file does not exist. Raises OSError when the file exists and
    cannot be read.
    """
    try:
        descriptor = _open(path)
    except FileNotFoundError:
        return b"", offset
    try:
        size = os.fstat(descriptor).st_size
        offset = _skip_hole(descriptor, offset if offset <= size else 0, size)
        block = os.pread(descriptor, BLOCK_BYTES, offset)
    finally:
        os.close(descriptor)
    # A hole ends at a page, not at a line, and another may be punched between lseek and pread: both read as NUL bytes.
    return block.lstrip(b"\0"), offset + len(block)


class OutputBlock(NamedTuple):
    """A block of an output file, and the offset behind it. `exists`: whether there is such a file."""

    data: bytes
    offset: int
    exists: bool = True


class OutputReader:
    """Reads output files off the event loop, for clients that may be many."""

    def __init__(self, *, calls: BoundedCalls) -> None:
        self._calls = calls

    async def read(self, path: str, offset: int) -> OutputBlock | str:
        """Read the block at `offset`, or say why the file cannot be read."""
        try:
            found = await self._calls.call(os.path.dirname(path), partial(_read_if_exists, path, offset))
        except OSError as error:
            return f"cannot read {path}: {error.strerror}"
        return f"cannot read {path}: its disk {found.words}" if isinstance(found, Unanswered) else found

    async def find(self, paths: Mapping[int, str]) -> list[AttemptOutput] | str:
        """List those of the outputs of one run's attempts that exist, or say why that cannot be known."""
        if not paths:
            return []
        folder = os.path.dirname(next(iter(paths.values())))
        found = await self._calls.call(folder, partial(find_outputs, paths))
        return f"cannot read {folder}: its disk {found.words}" if isinstance(found, Unanswered) else found


def _read_if_exists(path: str, offset: int) -> OutputBlock:
    data, after = read_block(path, offset)
    return OutputBlock(data, after, exists=after != offset or os.path.lexists(path))


def _open(path: str) -> int:
    return open_regular(path, os.O_RDONLY | os.O_NOFOLLOW)


def _skip_hole(descriptor: int, offset: int, size: int) -> int:
    try:
        return os.lseek(descriptor, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return max(size, offset)  # ENXIO: only a hole between `offset` and the end
