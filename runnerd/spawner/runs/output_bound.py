"""Cut a run's output file to its size limit, at the cost of the oldest output.

The oldest part is replaced by a hole (fallocate): offsets stay valid for readers and the writer, and the disk space is
freed. To punch a hole the kernel first writes the part to disk. A flood is therefore cut by truncation, which discards
it in memory, and the newest part is written again; so it is where no hole can be punched. The run appends, and goes on
behind that part. In either case the file then begins with a hole, by which its readers know that it was cut.
"""

from __future__ import annotations

import ctypes
import errno
import os

_FALLOC_FL_KEEP_SIZE = 1
_FALLOC_FL_PUNCH_HOLE = 2
BLOCK_BYTES = 4096
_SPARE_BYTES = 2**20  # more than a run appends between two calls here, mostly; below it no reservation is looked for
_TAIL_MAX_BYTES = 8 * 2**20  # of a truncated file, written again: a few milliseconds of the spawner's loop
_TAIL_READS = 3  # what is appended after the last is lost: the shorter that one takes, the less
_FLOOD_MIN_BYTES = 16 * 2**20  # less than this is written to disk in a moment


class OutputFile:
    """An open output file. Raises OSError, also where it does not belong to uid `owner`, unless that is None.

    `size` and `used_bytes`, the disk space, are those after it was opened or cut. It uses more than its size where a
    run reserved space behind its end (fallocate), and less where it has a hole.
    """

    __slots__ = ("_fd", "size", "used_bytes")

    def __init__(self, path: str, *, owner: int | None = None) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        uid = self._measure()
        if owner is not None and uid != owner:
            # The path may have been replaced by a link to the file of another user.
            os.close(self._fd)
            raise PermissionError(errno.EPERM, f"it belongs to uid {uid}")

    def _measure(self) -> int:
        facts = os.fstat(self._fd)
        self.size = facts.st_size
        self.used_bytes = facts.st_blocks * 512
        return facts.st_uid

    def __enter__(self) -> OutputFile:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def cut(self, keep_bytes: int, *, flood: bool = False) -> None:
        """Drop all but the newest `keep_bytes`, rounded down to blocks but at least one.

        `flood`: the run writes faster than disks do, so that much of the file is in memory only.
        """
        end = -(-self.size // BLOCK_BYTES) * BLOCK_BYTES
        drop = end - max(BLOCK_BYTES, keep_bytes // BLOCK_BYTES * BLOCK_BYTES)
        if drop <= 0:
            os.ftruncate(self._fd, self.size)  # frees what is reserved behind the end
        elif (flood and drop >= _FLOOD_MIN_BYTES) or not _punch_hole(self._fd, drop):
            self._cut_to_tail(keep_bytes)
        self._measure()
        if self.used_bytes > keep_bytes + _SPARE_BYTES:
            # A run can reserve space behind the end (fallocate), which no hole before the end gives back.
            os.ftruncate(self._fd, self.size)
            self._measure()

    def _cut_to_tail(self, keep_bytes: int) -> None:
        """Leave a hole of one block and the newest part, in the place of older output.

        What the run appends after the truncation is behind that part. Were the file cut to nothing first, as it has to
        be where no hole can be punched, the run could append before the hole is there, or before the older part.
        """
        keep = max(BLOCK_BYTES, min(keep_bytes, _TAIL_MAX_BYTES))
        punched = _punch_hole(self._fd, BLOCK_BYTES)
        tail = self._read_tail(keep)
        if not punched:
            os.ftruncate(self._fd, 0)
        os.ftruncate(self._fd, BLOCK_BYTES + len(tail))
        os.pwrite(self._fd, tail, BLOCK_BYTES)

    def _read_tail(self, keep: int) -> bytes:
        """Return the newest `keep` bytes, with what the run appended while the first of them were read."""
        tail, end = b"", 0
        for _ in range(_TAIL_READS):
            size = os.fstat(self._fd).st_size
            new = max(0, min(keep, size - end))
            tail = (tail + os.pread(self._fd, new, size - new))[-keep:]
            end = size
        return tail

    def write_back(self, up_to: int) -> None:
        """Have the kernel begin to write the first `up_to` bytes to disk, so that a later `cut` need not wait."""
        os.posix_fadvise(self._fd, 0, max(0, up_to), os.POSIX_FADV_DONTNEED)


def _punch_hole(fd: int, size: int) -> bool:
    mode = _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE
    fallocate = ctypes.CDLL(None, use_errno=True).fallocate64
    return bool(fallocate(fd, mode, ctypes.c_int64(0), ctypes.c_int64(size)) == 0)
