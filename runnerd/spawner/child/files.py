"""The files a run is given: nothing to read, its output, and where it is asked for, one for its result.

They are opened as the owner of the runs' output, who named them: root must not write where he could not himself, by
whatever links lead there.
"""

from __future__ import annotations

import os
import pwd
import stat

from runnerd.spawner.child.account import SetupFailed
from runnerd.spawner.io.messages import Launch

RESULT_FD = 3
_CREATE = os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY | os.O_WRONLY
_NOBODYS = 65534


def open_files(launch: Launch, owner: int | None) -> None:
    """As our descriptors 0 to 3. Raises SetupFailed."""
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.close(null)
    if owner is None or owner == os.geteuid():
        _open_own(launch)
        return
    groups, gid = os.getgroups(), os.getegid()
    _act_as(owner)
    try:
        _open_own(launch)
    finally:
        os.seteuid(0)
        os.setegid(gid)
        os.setgroups(groups)


def _act_as(owner: int) -> None:
    try:
        entry = pwd.getpwuid(owner)
        gid, groups = entry.pw_gid, os.getgrouplist(entry.pw_name, entry.pw_gid)
    except KeyError:
        gid, groups = _NOBODYS, []
    try:
        os.setgroups(groups)
        os.setegid(gid)
        os.seteuid(owner)
    except OSError as error:
        raise SetupFailed("output", f"cannot open files as uid {owner}: {error.strerror}", error.errno) from None


def _open_own(launch: Launch) -> None:
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
    try:
        fd = os.open(path, _CREATE | flags, 0o640)
        facts = os.fstat(fd)
        # A hard link to another's file is none of ours.
        if not stat.S_ISREG(facts.st_mode) or facts.st_nlink != 1:
            raise SetupFailed(what, f"cannot open {what} file {path}: it is not a regular file of its own")
    except OSError as error:
        raise SetupFailed(what, f"cannot open {what} file {path}: {error.strerror}", error.errno) from None
    return fd
