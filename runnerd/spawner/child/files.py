"""Open a run's files: stdin from its file or /dev/null, stdout and stderr to its output file, 3 to its result file.

They are opened as the user that owns the runs' output (`--owner`), who named the paths: root must not write where that
user could not, whatever links the paths lead through.
"""

from __future__ import annotations

import os
import pwd
import stat

from runnerd.spawner.child.account import SetupFailed
from runnerd.spawner.io.messages import Launch

RESULT_FD = 3
_CREATE_FLAGS = os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY | os.O_WRONLY
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK  # or a FIFO would hang the start
_NOGROUP_GID = 65534


def open_files(launch: Launch, owner: int | None) -> None:
    """Open the files as descriptors 0 to 3 of this process. Raises SetupFailed."""
    if launch.stdin is None:
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        os.dup2(null, 0)
        os.close(null)
    if owner is None or owner == os.geteuid():
        _open_as_current_user(launch)
        return
    groups, gid = os.getgroups(), os.getegid()
    _set_effective_user(owner)
    try:
        _open_as_current_user(launch)
    finally:
        os.seteuid(0)
        os.setegid(gid)
        os.setgroups(groups)


def _set_effective_user(owner: int) -> None:
    try:
        entry = pwd.getpwuid(owner)
        gid, groups = entry.pw_gid, os.getgrouplist(entry.pw_name, entry.pw_gid)
    except KeyError:
        gid, groups = _NOGROUP_GID, []
    try:
        os.setgroups(groups)
        os.setegid(gid)
        os.seteuid(owner)
    except OSError as error:
        raise SetupFailed("output", f"cannot open files as uid {owner}: {error.strerror}", error.errno) from None


def _open_as_current_user(launch: Launch) -> None:
    if launch.stdin is not None:
        stdin = _open("stdin", launch.stdin, _READ_FLAGS)
        os.dup2(stdin, 0)
        os.close(stdin)
    output = _create("output", launch.output, os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    if launch.result is not None:
        result = _create("result", launch.result, os.O_TRUNC)
        if result != RESULT_FD:
            os.dup2(result, RESULT_FD)
            os.close(result)
        os.set_inheritable(RESULT_FD, True)


def _create(what: str, path: str, flags: int) -> int:
    return _open(what, path, _CREATE_FLAGS | flags)


def _open(what: str, path: str, flags: int) -> int:
    try:
        fd = os.open(path, flags, 0o640)
        facts = os.fstat(fd)
        # A file with a second hard link may be another user's file in another directory.
        if not stat.S_ISREG(facts.st_mode) or facts.st_nlink != 1:
            raise SetupFailed(what, f"cannot open {what} file {path}: the path is not a regular file with one link")
    except OSError as error:
        raise SetupFailed(what, f"cannot open {what} file {path}: {error.strerror}", error.errno) from None
    return fd
