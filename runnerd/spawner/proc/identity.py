"""Identify a process by (boot id, pid, start ticks): the kernel reuses a pid, but never with the same start time."""

from __future__ import annotations

import os

# Fields of /proc/PID/stat, counted from the one after the command's closing bracket.
STAT_STATE, STAT_PARENT, STAT_GROUP, STAT_SESSION, STAT_THREADS, STAT_START_TICKS = 0, 1, 2, 3, 17, 19


class Boot:
    """Names the scope in which pids and start ticks are valid: a boot of the kernel and a pid namespace (container)."""

    __slots__ = ("id", "pid_namespace")

    def __init__(self, *, id: str, pid_namespace: int) -> None:
        self.id = id
        self.pid_namespace = pid_namespace

    @classmethod
    def current(cls) -> Boot:
        """Read the boot id and the pid namespace of this process. Raises OSError."""
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return cls(id=file.read().strip(), pid_namespace=os.stat("/proc/self/ns/pid").st_ino)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Boot) and (self.id, self.pid_namespace) == (other.id, other.pid_namespace)

    def __hash__(self) -> int:
        return hash((self.id, self.pid_namespace))


def read_stat(pid: int) -> list[bytes] | None:
    """Read the fields of /proc/PID/stat from the state on; None when there is no such process."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        # A command may contain spaces and brackets, so the fields start after the last bracket.
        return os.read(fd, 2048).rpartition(b")")[2].split(None, STAT_START_TICKS + 1)
    except ProcessLookupError:
        return None
    finally:
        os.close(fd)


def read_start_ticks(pid: int) -> int | None:
    """Read when the process started, in clock ticks since boot; None when there is no such process."""
    fields = read_stat(pid)
    return int(fields[STAT_START_TICKS]) if fields else None


def is_alive(pid: int) -> bool:
    """Return whether the process exists and is not a zombie."""
    fields = read_stat(pid)
    return fields is not None and is_running(fields)


def is_running(fields: list[bytes]) -> bool:
    """Return whether these fields of /proc/PID/stat are of a process that is neither a zombie nor dead."""
    # A process whose first thread has ended reads as a zombie while its other threads still run.
    return fields[STAT_STATE] not in (b"Z", b"X") or int(fields[STAT_THREADS]) > 1


def open_pidfd(pid: int, ticks: int) -> int | None:
    """Open a pidfd of the process with this pid and start time; None when that process is gone.

    A zombie still has a pidfd, which is readable at once.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    # Checked after the open: a check before it would miss a pid that passes to another process in between.
    if read_start_ticks(pid) != ticks:
        os.close(pidfd)
        return None
    return pidfd
