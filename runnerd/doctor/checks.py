"""What a look at this machine finds: the shape of a check, and those of disks and directories.

Shared by the daemon's doctor and by runnerctl, which looks for itself where no daemon answers: standard library only.
A look changes nothing, and may hang where a file system does: whoever takes it bounds its time.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from runnerd.core.units import format_size

OK: Final = "ok"
WARNING: Final = "warning"
ERROR: Final = "error"
UNKNOWN: Final = "unknown"

_GIB, _MIB = 2**30, 2**20
_LITTLE, _VERY_LITTLE = 0.10, 0.02


class Check(NamedTuple):
    """`detail` is one sentence of what is, `remedy` one of what to do; the latter is None where there is nothing to."""

    name: str
    state: str
    detail: str
    remedy: str | None = None


def ok(name: str, detail: str) -> Check:
    return Check(name, OK, detail)


def warning(name: str, detail: str, remedy: str) -> Check:
    return Check(name, WARNING, detail, remedy)


def error(name: str, detail: str, remedy: str) -> Check:
    return Check(name, ERROR, detail, remedy)


def unknown(name: str, detail: str, remedy: str | None = None) -> Check:
    return Check(name, UNKNOWN, detail, remedy)


def document(checks: Iterable[Check]) -> dict[str, Any]:
    """All of them as one document: `ok` is false where one of them is an error."""
    found = list(checks)
    return {"ok": all(check.state != ERROR for check in found), "checks": [check._asdict() for check in found]}


def some(names: Sequence[str]) -> str:
    """The first few of them."""
    return ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:3])} and {len(names) - 3} more"


# --- disks ----------------------------------------------------------------------------------------------------


class Room(NamedTuple):
    """What is free of a file system for whoever is not root; shares are of 1, None where it does not count inodes."""

    free_bytes: int
    free: float
    free_inodes: float | None

    @classmethod
    def at(cls, path: str) -> Room:
        """Raises OSError."""
        its = os.statvfs(path)
        mine = its.f_blocks - its.f_bfree + its.f_bavail  # as df counts: what is kept for root is nobody's
        share = its.f_bavail / mine if mine else 1.0
        return cls(its.f_bavail * its.f_frsize, share, its.f_favail / its.f_files if its.f_files else None)

    @property
    def state(self) -> str:
        shares = [self.free, *([] if self.free_inodes is None else [self.free_inodes])]
        if self.free_bytes < 100 * _MIB or min(shares) < _VERY_LITTLE:
            return ERROR
        if self.free_bytes < _GIB or min(shares) < _LITTLE:
            return WARNING
        return OK

    def __str__(self) -> str:
        size = format_size(self.free_bytes, rounded=True)
        inodes = "" if self.free_inodes is None else f" and {self.free_inodes:.0%} of its inodes"
        return f"{size} ({self.free:.0%}){inodes} are free"


def disk_check(name: str, path: str, loss: str, *, room: Room | None = None) -> Check:
    """Whether the file system of `path` has room; `loss` says what is lost when it has none."""
    try:
        room = room or Room.at(path)
    except FileNotFoundError:
        return unknown(name, f"{path} does not exist, so its disk cannot be looked at")
    except OSError as why:
        return error(name, f"cannot look at the file system of {path}: {why.strerror}", f"see findmnt -T {path}")
    if room.state == OK:
        return ok(name, f"{room} at {path}")
    remedy = f"make room: df -h {path} and df -i {path} show what is full, du -xh {path} | sort -h what fills it"
    return Check(name, room.state, f"only {room} at {path}; {loss}", remedy)


def disk_checks(*, state: str, log: str) -> list[Check]:
    """Those of the directories that runnerd writes to."""
    return [
        disk_check("state disk", state, "without room the journal cannot record, and nothing new is claimed"),
        disk_check("log disk", log, "without room the output of flows is lost"),
    ]


# --- directories ----------------------------------------------------------------------------------------------


def directory_check(name: str, path: str, *, user: str, write: bool) -> Check:
    """Whether the directory is there for us, who are `user`."""
    try:
        is_directory = stat.S_ISDIR(os.stat(path).st_mode)
    except FileNotFoundError:
        return error(name, f"{path} does not exist", f"make it and give it to {user}: mkdir -p {path}")
    except OSError as why:
        return error(name, f"cannot look at {path}: {why.strerror}", f"see namei -l {path}")
    if not is_directory:
        return error(name, f"{path} is no directory", f"move it away and make a directory there: ls -ld {path}")
    if os.access(path, os.R_OK | os.X_OK | (os.W_OK if write else 0)):
        return ok(name, f"{path} can be {'written' if write else 'read'}")
    if write and os.statvfs(path).f_flag & os.ST_RDONLY:
        return error(name, f"{path} is mounted read-only", f"mount it for writing: findmnt -T {path}")
    if write:
        return error(
            name, f"user {user} may not write in {path}", f"chown {user} {path}; namei -l {path} shows its modes"
        )
    return error(name, f"user {user} may not read {path}", f"chmod a+rx {path}; namei -l {path} shows its modes")


def unreadable(paths: Iterable[str]) -> list[str]:
    """Those that we may not read; a file that is gone is nobody's trouble."""
    return [path for path in paths if os.path.exists(path) and not os.access(path, os.R_OK)]
