"""The result of a check, and the checks of disks and directories.

Shared by the daemon's doctor and by runnerctl, which runs checks itself when no daemon answers; so this module imports
only the standard library. A check changes nothing on the host. A check of a file system may hang as long as the file
system does, so the caller must limit its time.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from runnerd.core.units import format_size

OK: Final = "ok"
WARNING: Final = "warning"
ERROR: Final = "error"
UNKNOWN: Final = "unknown"

_GIB, _MIB = 2**30, 2**20
_WARNING_SHARE, _ERROR_SHARE = 0.10, 0.02


class Check(NamedTuple):
    """The result of one check.

    `state` is OK, WARNING, ERROR or UNKNOWN. `detail` says in one sentence what was found, `remedy` what to do;
    `remedy` is None when there is nothing to do.
    """

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
    """Return the doctor document; `ok` is false when any check is an error."""
    found = list(checks)
    return {"ok": all(check.state != ERROR for check in found), "checks": [check._asdict() for check in found]}


# --- disks ----------------------------------------------------------------------------------------------------


class FreeSpace(NamedTuple):
    """The free space of a file system for users other than root.

    `free` and `free_inodes` are shares of 1; `free_inodes` is None for a file system that does not count inodes.
    """

    free_bytes: int
    free: float
    free_inodes: float | None

    @classmethod
    def at(cls, path: str) -> FreeSpace:
        """Measure the file system of `path`. Raises OSError."""
        fs = os.statvfs(path)
        total = fs.f_blocks - fs.f_bfree + fs.f_bavail  # as df does: without the blocks reserved for root
        share = fs.f_bavail / total if total else 1.0
        return cls(fs.f_bavail * fs.f_frsize, share, fs.f_favail / fs.f_files if fs.f_files else None)

    @property
    def state(self) -> str:
        shares = [self.free, *([] if self.free_inodes is None else [self.free_inodes])]
        if self.free_bytes < 100 * _MIB or min(shares) < _ERROR_SHARE:
            return ERROR
        if self.free_bytes < _GIB or min(shares) < _WARNING_SHARE:
            return WARNING
        return OK

    def __str__(self) -> str:
        size = format_size(self.free_bytes, rounded=True)
        inodes = "" if self.free_inodes is None else f" and {self.free_inodes:.0%} of its inodes"
        return f"{size} ({self.free:.0%}){inodes} are free"


def check_disk(name: str, path: str, loss: str, *, space: FreeSpace | None = None) -> Check:
    """Check the free space of the file system of `path`; `loss` says what fails without free space."""
    try:
        space = space or FreeSpace.at(path)
    except FileNotFoundError:
        return unknown(name, f"cannot check the disk of {path}: the directory does not exist")
    except OSError as why:
        return error(name, f"cannot check the disk of {path}: {why.strerror}", f"see findmnt -T {path}")
    if space.state == OK:
        return ok(name, f"{space} at {path}")
    remedy = f"free space: df -h {path} and df -i {path} show what is used, du -xh {path} | sort -h shows by what"
    return Check(name, space.state, f"only {space} at {path}; {loss}", remedy)


def check_disks(*, state: str, log: str) -> list[Check]:
    """Check the disks of the directories that runnerd writes to."""
    return [
        check_disk("state disk", state, "without free space runnerd cannot write its journal and claims no new run"),
        check_disk("log disk", log, "without free space the output of runs is lost"),
    ]


# --- directories ----------------------------------------------------------------------------------------------


def check_directory(name: str, path: str, *, user: str, write: bool) -> Check:
    """Check that the directory exists and that this process, which runs as `user`, may read or write it."""
    try:
        is_directory = stat.S_ISDIR(os.stat(path).st_mode)
    except FileNotFoundError:
        return error(name, f"{path} does not exist", f"create it for {user}: install -d -o {user} {path}")
    except OSError as why:
        return error(name, f"cannot check {path}: {why.strerror}", f"see namei -l {path}")
    if not is_directory:
        return error(name, f"{path} is not a directory", f"move it away, and create a directory: ls -ld {path}")
    if os.access(path, os.R_OK | os.X_OK | (os.W_OK if write else 0)):
        return ok(name, f"{path} is {'writable' if write else 'readable'}")
    if write and os.statvfs(path).f_flag & os.ST_RDONLY:
        return error(name, f"{path} is mounted read-only", f"remount it read-write: findmnt -T {path}")
    if write:
        return error(
            name, f"user {user} cannot write to {path}", f"chown {user} {path}; namei -l {path} shows its modes"
        )
    return error(name, f"user {user} cannot read {path}", f"chmod a+rx {path}; namei -l {path} shows its modes")


def unreadable(paths: Iterable[str]) -> list[str]:
    """Return the paths that exist and that this process may not read."""
    return [path for path in paths if os.path.exists(path) and not os.access(path, os.R_OK)]
