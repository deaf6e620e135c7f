"""Scan /proc for processes: parent, session and start time of each.

* A scan takes time. A process that forks and exits meanwhile can be missed, so a caller that must be sure scans again.
* A process from a scan is signalled through a pidfd, whose start time is compared after it was opened.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from collections.abc import Iterable

from runnerd.spawner.proc.identity import (
    STAT_PARENT,
    STAT_SESSION,
    STAT_START_TICKS,
    STAT_STATE,
    is_running,
    open_pidfd,
    read_stat,
)

_PR_SET_CHILD_SUBREAPER = 36
_RUN_ID = b"RUNNERD_RUN_ID="
_ENVIRONMENT_MAX_BYTES = 2**21  # a process can declare all of its memory its environment


class Process:
    """One process as a scan saw it."""

    __slots__ = ("alive", "parent", "pid", "session", "ticks")

    def __init__(self, pid: int, fields: list[bytes]) -> None:
        self.pid = pid
        self.parent = int(fields[STAT_PARENT])
        self.session = int(fields[STAT_SESSION])
        self.ticks = int(fields[STAT_START_TICKS])
        self.alive = is_running(fields)

    def send_signal(self, number: int) -> bool:
        """Signal the process; False when it is gone or we may not signal it. Raises OSError when out of descriptors."""
        pidfd = open_pidfd(self.pid, self.ticks)
        if pidfd is None:
            return False
        try:
            signal.pidfd_send_signal(pidfd, number)
        except (ProcessLookupError, PermissionError):
            return False
        finally:
            os.close(pidfd)
        return True


ProcessTable = dict[int, Process]  # by pid


def scan_processes() -> ProcessTable:
    """Read all processes of the host from /proc."""
    table = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            pid = int(name)
            fields = read_stat(pid)
            if fields:
                table[pid] = Process(pid, fields)
    return table


def with_descendants(table: ProcessTable, roots: Iterable[int]) -> list[Process]:
    """Return the processes of `table` whose pids are in `roots`, and all their descendants."""
    children: dict[int, list[Process]] = {}
    for process in table.values():
        children.setdefault(process.parent, []).append(process)
    found = [table[pid] for pid in set(roots) if pid in table]
    seen = {process.pid for process in found}
    for process in found:  # grows in the loop
        for child in children.get(process.pid, ()):
            # A child that is older than its parent was read when the parent's pid was still another process's.
            if child.pid not in seen and child.ticks >= process.ticks:
                seen.add(child.pid)
                found.append(child)
    return found


def list_own_children() -> list[int]:
    """Return the pids of this process's children, zombies that are not yet reaped included."""
    try:
        with open("/proc/thread-self/children", "rb", buffering=0) as file:
            return [int(pid) for pid in file.readall().split()]
    except FileNotFoundError:  # the kernel was built without this file
        me = os.getpid()
        return [process.pid for process in scan_processes().values() if process.parent == me]


def read_run_key(pid: int) -> str | None:
    """Read RUNNERD_RUN_ID from the environment of a process: "" when it has none, None when it cannot be read now."""
    fields = read_stat(pid)
    if not fields or fields[STAT_STATE] == b"D":
        return None  # reading the memory of a process that hangs in the kernel may hang as well
    try:
        with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
            environment = file.read(_ENVIRONMENT_MAX_BYTES)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise
        return None  # the process is gone, or we may not read it
    for item in (environment or b"").split(b"\0"):
        if item.startswith(_RUN_ID):
            return item[len(_RUN_ID) :].decode("utf-8", "replace")
    return "" if environment else None  # during an exec the environment reads as empty


def describe_process(pid: int) -> str:
    """Return pid and command name, for the log."""
    try:
        with open(f"/proc/{pid}/comm", "rb", buffering=0) as file:
            return f"{pid} ({(file.read(64) or b'').decode('utf-8', 'replace').strip()})"
    except OSError:
        return str(pid)


def become_subreaper() -> None:
    """Have the kernel give orphaned descendants to this process, not to init; survives an exec. Raises OSError."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
