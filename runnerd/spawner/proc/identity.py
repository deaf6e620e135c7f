"""Who a process is: (boot id, pid, start ticks) names one for ever, where a pid alone is reused."""

from __future__ import annotations

import os

_STATE, _THREADS, _START_TICKS = 0, 17, 19  # fields of /proc/PID/stat, counted after the command's closing bracket


class Boot:
    """Where pids and start ticks mean something: one boot of the kernel and one pid namespace (a container's)."""

    __slots__ = ("id", "pid_namespace")

    def __init__(self, *, id: str, pid_namespace: int) -> None:
        self.id = id
        self.pid_namespace = pid_namespace

    @classmethod
    def here(cls) -> Boot:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return cls(id=file.read().strip(), pid_namespace=os.stat("/proc/self/ns/pid").st_ino)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Boot) and (self.id, self.pid_namespace) == (other.id, other.pid_namespace)

    def __hash__(self) -> int:
        return hash((self.id, self.pid_namespace))


def stat_fields(pid: int) -> list[bytes] | None:
    """What the kernel says of a process, counted from its state on; None when there is none."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        # A command may hold spaces and brackets, so fields are counted from its last bracket on.
        return os.read(fd, 2048).rpartition(b")")[2].split(None, _START_TICKS + 1)
    except ProcessLookupError:
        return None
    finally:
        os.close(fd)


def start_ticks(pid: int) -> int | None:
    """When the process started, in clock ticks since boot; None when there is no such process."""
    fields = stat_fields(pid)
    return int(fields[_START_TICKS]) if fields else None


def is_alive(pid: int) -> bool:
    """Whether there is such a process and it is more than a zombie."""
    fields = stat_fields(pid)
    # A process whose first thread has ended reads as a zombie for as long as its other threads work on.
    return fields is not None and (fields[_STATE] not in (b"Z", b"X") or int(fields[_THREADS]) > 1)


def open_process(pid: int, ticks: int) -> int | None:
    """A pidfd of exactly this process, None when it is gone. A zombie still has one, readable at once."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    # Only now: before the pidfd was open the pid could have passed to another process after the check.
    if start_ticks(pid) != ticks:
        os.close(pidfd)
        return None
    return pidfd
