"""Check a process that claims to be the fork of a warm interpreter, and give it the limits of its run.

The interpreter has imported code of the run's user, so nothing that it says is believed. The pid comes from the kernel
(SO_PASSCRED), the rest from /proc. A child of ours keeps its pid until we reap it; so once a pidfd is open and the
process is still our child, pid, pidfd and start ticks are one process.
"""

from __future__ import annotations

import os
import resource
import signal

from runnerd.spawner.cgroups.limits import make_rlimits
from runnerd.spawner.child.account import RunAccount
from runnerd.spawner.io.messages import Launch
from runnerd.spawner.proc.identity import (
    STAT_GROUP,
    STAT_PARENT,
    STAT_SESSION,
    STAT_START_TICKS,
    STAT_THREADS,
    is_running,
    read_stat,
)
from runnerd.spawner.proc.orphans import Orphans

_STATUS_MAX_BYTES = 65536
_NAME_WIDTH = 26  # of the names in /proc/PID/limits, which have spaces
# Lines of /proc/PID/status: the real, effective, saved and file system ids, all groups, and the capabilities.
_ACCOUNT_LINES = (b"Uid:", b"Gid:", b"Groups:", b"CapPrm:", b"CapEff:")
_ALL_RLIMITS = sorted(
    {value for name, value in vars(resource).items() if name.startswith("RLIMIT_") and isinstance(value, int)}
)


class Unacceptable(Exception):
    """The process cannot be the run; the message is one sentence."""


class Credentials:
    """The ids, groups and capabilities of a process, as the kernel has them. Raises OSError for one that is gone."""

    __slots__ = ("_lines", "uid")

    def __init__(self, pid: int) -> None:
        fd = os.open(f"/proc/{pid}/status", os.O_RDONLY | os.O_CLOEXEC)
        try:
            text = os.read(fd, _STATUS_MAX_BYTES)
        finally:
            os.close(fd)
        self._lines = [line.split() for line in text.splitlines() if line.startswith(_ACCOUNT_LINES)]
        if len(self._lines) != len(_ACCOUNT_LINES):
            raise ProcessLookupError
        self.uid = int(self._lines[0][1])

    def has_account(self, account: RunAccount) -> bool:
        """Return whether these are exactly the ids and groups of the account."""
        uid, gid, groups = ({int(number) for number in line[1:]} for line in self._lines[:3])
        return (uid, gid, groups) == ({account.uid}, {account.gid}, set(account.groups))

    def same_as(self, other: Credentials) -> bool:
        return self._lines == other._lines


def open_fork(pid: int, *, like: Credentials, orphans: Orphans) -> tuple[int, int]:
    """Return a pidfd of the process and its start ticks. Raises Unacceptable, and OSError for one that is gone."""
    pidfd = os.pidfd_open(pid)
    try:
        # After the open: before it, the pid may have passed to another process.
        fields = read_stat(pid)
        if not fields or int(fields[STAT_PARENT]) != os.getpid() or not is_running(fields):
            raise Unacceptable("the forked process is not a child of the spawner")
        if int(fields[STAT_GROUP]) != pid or int(fields[STAT_SESSION]) != pid:
            raise Unacceptable("the forked process does not lead a session")
        if int(fields[STAT_THREADS]) != 1:
            raise Unacceptable("the forked process has more than one thread")
        if not Credentials(pid).same_as(like):
            raise Unacceptable("the forked process is not the user that the interpreter was started as")
        if not orphans.is_unknown(pid):
            raise Unacceptable("the forked process is another run's")
    except BaseException:
        os.close(pidfd)
        raise
    return pidfd, int(fields[STAT_START_TICKS])


def choose_rlimits(launch: Launch, credentials: Credentials) -> dict[int, tuple[int, int]]:
    """Return all rlimits of a run by their numbers, as its set-up leaves them for a process that is started cold.

    What the launch spec leaves open is the spawner's own, which such a process inherits.
    """
    user_counts = os.geteuid() == 0 and credentials.uid != 0
    wanted = {number: resource.getrlimit(number) for number in _ALL_RLIMITS}
    for _, number, soft, hard in make_rlimits(launch, user_counts=user_counts):
        wanted[number] = (soft, hard)
    return wanted


def choose_nice(launch: Launch) -> int:
    """Return the run's nice value: that of its launch spec, else the spawner's own."""
    return os.getpriority(os.PRIO_PROCESS, 0) if launch.nice is None else launch.nice


def ensure_limits(pid: int, launch: Launch, credentials: Credentials) -> None:
    """Check rlimits, nice and OOM score of a fork, and set those that it has not set itself.

    A process may lower its own, which takes no capability. Raises Unacceptable and OSError.
    """
    found = _read_rlimits(pid)
    for number, wanted in choose_rlimits(launch, credentials).items():
        if found.get(number) != wanted:
            try:
                resource.prlimit(pid, number, wanted)
            except (ValueError, PermissionError) as error:
                raise Unacceptable(f"a limit of the run cannot be set: {error}") from None
    nice = choose_nice(launch)
    if os.getpriority(os.PRIO_PROCESS, pid) != nice:
        os.setpriority(os.PRIO_PROCESS, pid, nice)
    if os.geteuid() == 0:
        _reset_oom_score(pid)


def _read_rlimits(pid: int) -> dict[int, tuple[int, int]]:
    """Read /proc/PID/limits: a line for each number, from 0 on. prlimit(2) takes a capability for another user's."""
    with open(f"/proc/{pid}/limits", encoding="ascii", errors="replace") as file:
        lines = file.read().splitlines()[1:]
    found = {}
    for number, line in enumerate(lines):
        soft, hard = line[_NAME_WIDTH:].split()[:2]
        found[number] = (_to_rlimit(soft), _to_rlimit(hard))
    return found


def _to_rlimit(text: str) -> int:
    return resource.RLIM_INFINITY if text == "unlimited" else int(text)


def _reset_oom_score(pid: int) -> None:
    path = f"/proc/{pid}/oom_score_adj"
    with open(path, "rb", buffering=0) as file:
        if file.read(16) == b"0\n":
            return  # setting it may take a capability
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, b"0")
    finally:
        os.close(fd)


def kill_rejected(pid: int, orphans: Orphans) -> None:
    """SIGKILL a process that was forked and not accepted, if it is a child of ours that is nothing else."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return  # the process is gone; or without descriptors, and the end of its pipe ends the process
    try:
        fields = read_stat(pid)
        if fields and int(fields[STAT_PARENT]) == os.getpid() and orphans.is_unknown(pid):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except OSError:
        return
    finally:
        os.close(pidfd)
