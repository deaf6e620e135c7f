"""Finds the mount that a path is on, in /proc/self/mountinfo: that asks no file system, so that none can hang.

A path is taken as it is written: following its links would ask the file system.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

_MAX_AGE_S = 1.0
_OCTAL = re.compile(r"\\([0-7]{3})")
# Not of these: network file systems, FUSE, and automounts, which wait for a server.
_LOCAL = frozenset(
    "bcachefs bpf btrfs cgroup cgroup2 configfs debugfs devpts devtmpfs efivarfs erofs exfat ext2 ext3 ext4 f2fs"
    " hugetlbfs iso9660 jfs mqueue nsfs ntfs3 overlay proc pstore ramfs reiserfs securityfs squashfs sysfs tmpfs"
    " tracefs udf vfat xfs zfs".split()
)


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted file system: its `device`, as `0:47`, and whether another host or a process may keep it waiting."""

    device: str
    remote: bool


def read_mountinfo(path: str = "/proc/self/mountinfo") -> list[str]:
    """Read the mounts of this process; none where /proc is not mounted."""
    try:
        with open(path, "rb") as file:
            # Not readlines() of text: the kernel escapes a newline in a name, but no carriage return.
            return [os.fsdecode(line) for line in file.read().split(b"\n")]
    except OSError:
        return []


class Mounts:
    """The mounts of this process, at most _MAX_AGE_S old."""

    def __init__(
        self, *, read: Callable[[], Iterable[str]] = read_mountinfo, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = read
        self._clock = clock
        self._read_at = float("-inf")
        self._by_point: Mapping[str, Mount] = {}

    def find(self, path: str) -> Mount | None:
        """Find the mount with the longest mount point that `path`, which is absolute, is under."""
        now = self._clock()
        if now - self._read_at >= _MAX_AGE_S:
            self._by_point, self._read_at = parse_mounts(self._read()), now
        point = "/" + os.path.normpath(path).lstrip("/")  # POSIX leaves two slashes as they are
        while point != "/" and point not in self._by_point:
            point = os.path.dirname(point)
        return self._by_point.get(point)


def parse_mounts(lines: Iterable[str]) -> dict[str, Mount]:
    """Return the mounts by mount point, from lines as proc_pid_mountinfo(5) has them; of several on one, the last.

    The root is never remote: where it hangs, everything does, and it holds the links whose targets are unknown.
    """
    found = {}
    for line in lines:
        fields, _, rest = line.partition(" - ")
        words, kind = fields.split(" "), rest.split(" ")[0]  # split() would also split at a name's NBSP
        if len(words) < 5:
            continue
        point = _OCTAL.sub(lambda match: chr(int(match[1], 8)), words[4])
        found[point] = Mount(device=words[2], remote=point != "/" and kind not in _LOCAL)
    return found
