"""Whether it was the kernel, short of memory, that killed a run: said on evidence, never guessed.

* The kernel's log names the pid of each process it kills. Its lines are numbered; a run keeps the number that was next
  at its start, so a line about an earlier process of the same pid is never read as one about the run. Numbers, not the
  lines' times: those are of a clock of their own, which drifts from that of start times by minutes in a month.
* Where the log cannot be read (no CAP_SYSLOG; a pid namespace, whose pids are not those in the log), the count of kills
  in the run's own cgroup is evidence, if the leader died of a SIGKILL that nobody here sent. It counts children too,
  so a log that can be read has the last word.
* `oom_kill` of /proc/vmstat is no evidence: it counts the whole host, and an administrator's `kill -9` in the hour in
  which a browser ran out of memory would read as the run's. Without evidence the exit says SIGKILL, and that is true.
* A child that was killed is not the run's end: the leader has to die of it itself.
"""

from __future__ import annotations

import errno
import os
import re
import signal

from runnerd.spawner.io.log import log

# "Memory cgroup out of memory: Killed process 7 (name) ...", "Out of memory: ..."; before Linux 5 without the cause.
# Not "oom-kill:...,pid=7": that names who is chosen, and it may turn out to be exiting by itself.
_KILLED = re.compile(rb"(?:(?:Memory cgroup out|Out) of memory[^:]*: )?Killed process ([0-9]+) \(")
_HEAD = re.compile(rb"([0-9]+),([0-9]+),[^;]*;")

_PATH = "/dev/kmsg"
_FIRST_PID_NAMESPACE = 0xEFFFFFFC  # its inode, fixed in the kernel
_RECORD_BYTES = 8192  # the kernel refuses to read a record into less
_RECORDS_AT_ONCE = 100_000  # no end otherwise while something logs faster than we read
_KILLS_KEPT = 1000


def read_record(record: bytes) -> tuple[int, int | None]:
    """A record of the log: its number, and the pid it says was killed for memory. ValueError when it is no record."""
    head = _HEAD.match(record)
    if head is None:
        raise ValueError(f"not a record of the kernel's log: {record[:80]!r}")
    # What a program wrote into the log has another facility than the kernel's 0, and is no evidence.
    by_kernel = int(head[1]) >> 3 == 0
    killed = _KILLED.match(record, head.end()) if by_kernel else None
    return int(head[2]), int(killed[1]) if killed else None


class KernelLog:
    """The kernel's log, read when asked and not in between. `fd` gives one record a read, without blocking."""

    __slots__ = ("_fd", "_kills", "_next")

    def __init__(self, fd: int | None) -> None:
        self._fd = fd
        self._next = 0
        self._kills: dict[int, int] = {}  # pid: the number of the last line about it

    @classmethod
    def open(cls) -> KernelLog:
        """One that knows nothing where the log cannot be read."""
        try:
            if os.stat("/proc/self/ns/pid").st_ino != _FIRST_PID_NAMESPACE:
                return cls(None)
            return cls(os.open(_PATH, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError:
            return cls(None)

    def position(self) -> int | None:
        """The number the next line will have or exceed; None where the log cannot be read."""
        self._catch_up()
        return None if self._fd is None else self._next

    def killed(self, pid: int, since: int | None) -> bool | None:
        """Whether the kernel has killed `pid` for memory, at or after position `since`; None: nobody can tell."""
        self._catch_up()
        if self._fd is None or since is None:
            return None
        return self._kills.get(pid, -1) >= since

    def close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def _catch_up(self) -> None:
        for _ in range(_RECORDS_AT_ONCE):
            record = self._read()
            if not record:
                return
            try:
                number, pid = read_record(record)
            except ValueError:
                continue  # a format to come; the lines we know are still found
            self._next = number + 1
            if pid is not None:
                self._keep(pid, number)

    def _read(self) -> bytes:
        while self._fd is not None:
            try:
                return os.read(self._fd, _RECORD_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                # EPIPE: lines were overwritten before we read them, and the next read gives the oldest that is left.
                # They are older than a kill that has just been; so nothing is lost that matters.
                if error.errno != errno.EPIPE:
                    log(f"cannot read {_PATH}: {error.strerror}; going without")
                    self.close()
        return b""

    def _keep(self, pid: int, number: int) -> None:
        self._kills.pop(pid, None)  # to the end of the order, in which the oldest are dropped
        self._kills[pid] = number
        if len(self._kills) > _KILLS_KEPT:
            del self._kills[next(iter(self._kills))]


def is_out_of_memory(
    *,
    seen: bool,
    died_by: int | None,
    by_us: bool,
    named: bool | None,
    killed_in_group: int | None,
    killed_whole: bool = False,
) -> bool:
    """Whether this end was the kernel's for want of memory.

    `seen`: the leader was our child, so `died_by` says what signal it died of, None for none. `by_us`: we had sent
    SIGKILL. `named`: what the kernel's log says of its pid. `killed_in_group`: the count of its own cgroup.
    `killed_whole`: that all of its cgroup was killed, the leader with it.
    """
    if seen and died_by != signal.SIGKILL:
        return False  # killed while it was exiting by itself: that exit is what counted
    if named is not None:
        return named
    return killed_whole if not seen else not by_us and bool(killed_in_group)
