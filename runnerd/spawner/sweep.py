"""Ends what a run leaves behind: SIGKILL for every process of the leader's session.

A session's number cannot become a new process's pid while a member of the session or group lives, so members that are
found are the run's own unless the number was free in between: then its leader has other start ticks.
Each member is signalled through its pidfd; the group as a whole only while its leader is pinned, that is our unreaped
child.
"""

from __future__ import annotations

import os
import signal

from runnerd.spawner.identity import is_alive, start_ticks


def kill_session(leader: int, ticks: int, *, pinned: bool) -> int:
    """SIGKILL all of the session of `leader` once; how many live processes it found. 0 means: none are left.

    A process that forks faster than the scan can slip through one pass, so call it until it returns 0.
    """
    if pinned:
        _kill_group(leader)
    elif start_ticks(leader) not in (None, ticks):
        return 0
    return sum(_kill_member(pid, leader) for pid in _session(leader))


def _kill_group(leader: int) -> None:
    """One signal to the whole group is atomic: nobody in it can fork away from it."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return  # it did not get as far as its setsid, or what is left of it is not ours to signal


def _session(leader: int) -> list[int]:
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in pids if _session_of(pid) == leader and is_alive(pid)]


def _session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return None


def _kill_member(pid: int, leader: int) -> bool:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        # The pid may have passed to a stranger between the scan and the pidfd.
        if _session_of(pid) != leader:
            return False
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        os.close(pidfd)
    return True
