"""Decide from evidence whether the kernel's OOM killer ended a run.

* The kernel's log names the pid of each process the OOM killer kills. Log lines are numbered; a run's record holds the
  number that was next at the start of the run, so a line about an earlier process with the same pid does not count. The
  times of the lines would not do: their clock drifts from that of start times by minutes in a month.
* Where the log cannot be read (no CAP_SYSLOG; or a pid namespace, whose pids differ from those in the log), the kills
  counted by the run's cgroup are evidence, if the leader died of a SIGKILL that the spawner did not send. The cgroup
  counts children too, so the log, where it can be read, decides.
* `oom_kill` in /proc/vmstat is no evidence: it counts the whole host, so an administrator's `kill -9` would pass for
  the OOM killer's while another program ran out of memory. Without evidence the exit is reported as SIGKILL.
* The OOM kill of a child is not the end of a run: the leader itself has to die of it.
"""

from __future__ import annotations

import errno
import os
import re
import signal

from runnerd.spawner.io.log import log

# "Memory cgroup out of memory: Killed process 7 (name) ...", "Out of memory: ..."; before Linux 5 without the cause.
# Not "oom-kill:...,pid=7": that names the process chosen, which may then exit by itself.
_KILLED_LINE = re.compile(rb"(?:(?:Memory cgroup out|Out) of memory[^:]*: )?Killed process ([0-9]+) \(")
_RECORD_HEAD = re.compile(rb"([0-9]+),([0-9]+),[^;]*;")

_KERNEL_LOG_PATH = "/dev/kmsg"
_INITIAL_PID_NAMESPACE_INODE = 0xEFFFFFFC  # PROC_PID_INIT_INO, fixed in the kernel
_RECORD_MAX_BYTES = 8192  # the kernel refuses to read a record into less
_RECORDS_PER_READ = 100_000  # or reading would not end while a program logs faster than we read
_KILLS_REMEMBERED = 1000


def read_record(record: bytes) -> tuple[int, int | None]:
    """Return a record's number and the pid that was OOM-killed, if the record says so. ValueError when malformed."""
    head = _RECORD_HEAD.match(record)
    if head is None:
        raise ValueError(f"not a record of the kernel's log: {record[:80]!r}")
    # The kernel's own lines have facility 0; a line that a program wrote into the log is no evidence.
    by_kernel = int(head[1]) >> 3 == 0
    killed = _KILLED_LINE.match(record, head.end()) if by_kernel else None
    return int(head[2]), int(killed[1]) if killed else None


class KernelLog:
    """Reads the OOM kills from the kernel's log. `fd` gives one record a read, without blocking; None: no log."""

    __slots__ = ("_fd", "_kills", "_next")

    def __init__(self, fd: int | None) -> None:
        self._fd = fd
        self._next = 0
        self._kills: dict[int, int] = {}  # pid: the number of the last line about that pid

    @classmethod
    def open(cls) -> KernelLog:
        """Open the kernel's log; without a log where it cannot be read."""
        try:
            if os.stat("/proc/self/ns/pid").st_ino != _INITIAL_PID_NAMESPACE_INODE:
                return cls(None)
            return cls(os.open(_KERNEL_LOG_PATH, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError:
            return cls(None)

    def next_number(self) -> int | None:
        """Return the least number the next line can have; None where the log cannot be read."""
        self._read_new_records()
        return None if self._fd is None else self._next

    def has_killed(self, pid: int, since: int | None) -> bool | None:
        """Return whether a line numbered `since` or higher says that `pid` was OOM-killed; None: unknown, no log."""
        self._read_new_records()
        if self._fd is None or since is None:
            return None
        return self._kills.get(pid, -1) >= since

    def close(self) -> None:
        """Close the log; from then on every answer is None."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def _read_new_records(self) -> None:
        for _ in range(_RECORDS_PER_READ):
            record = self._read()
            if not record:
                return
            try:
                number, pid = read_record(record)
            except ValueError:
                continue  # a format of a newer kernel; lines of the known format are still found
            self._next = number + 1
            if pid is not None:
                self._remember_kill(pid, number)

    def _read(self) -> bytes:
        while self._fd is not None:
            try:
                return os.read(self._fd, _RECORD_MAX_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                # EPIPE: the kernel overwrote lines before we read them, and the next read gives the oldest that is
                # left. The lines lost are older than the kill in question, which has just happened.
                if error.errno != errno.EPIPE:
                    log(f"cannot read {_KERNEL_LOG_PATH}: {error.strerror}; going without")
                    self.close()
        return b""

    def _remember_kill(self, pid: int, number: int) -> None:
        self._kills.pop(pid, None)  # moves the pid to the end of the order, from whose start entries are dropped
        self._kills[pid] = number
        if len(self._kills) > _KILLS_REMEMBERED:
            del self._kills[next(iter(self._kills))]


def is_out_of_memory(
    *,
    is_our_child: bool,
    died_of: int | None,
    killed_by_us: bool,
    in_kernel_log: bool | None,
    cgroup_oom_kills: int | None,
    cgroup_killed_whole: bool = False,
) -> bool:
    """Return whether the OOM killer ended the leader of a run.

    `is_our_child`: only then `died_of` is known, the signal the leader died of, None for none. `killed_by_us`: the
    spawner had sent SIGKILL. `in_kernel_log`: whether the kernel's log has an OOM kill of its pid, None without a log.
    `cgroup_oom_kills`: the kills that its cgroup counted. `cgroup_killed_whole`: the whole cgroup was OOM-killed.
    """
    if is_our_child and died_of != signal.SIGKILL:
        return False  # OOM-killed while it was exiting by itself: its own exit counts
    if in_kernel_log is not None:
        return in_kernel_log
    return cgroup_killed_whole if not is_our_child else not killed_by_us and bool(cgroup_oom_kills)
