"""Control the cgroup of one run: write its limits, list and kill its processes, remove it.

* A process stays in its cgroup after setsid, a double fork and the death of its parents, and no process outruns the
  kill of a cgroup by forking.
* Limits are written before a process is put into the cgroup.
`tree` makes the cgroups, `delegation` finds where.
"""

from __future__ import annotations

import errno
import os
import signal

_KILL_FILE = "cgroup.kill"
_PIDFDS_AT_ONCE = 64


class RunCgroup:
    """The cgroup of one run at `directory`. Methods raise OSError, but not for a cgroup or process that is gone."""

    __slots__ = ("_kill_file", "directory")

    def __init__(self, directory: str, *, kill_file: str = _KILL_FILE) -> None:
        self.directory = directory
        self._kill_file = kill_file

    def add_process(self, pid: int) -> None:
        """Move a process into the cgroup, which all processes that it forks later inherit."""
        write_file(os.path.join(self.directory, "cgroup.procs"), str(pid))

    def write_file(self, name: str, content: str) -> None:
        """Write one control file, such as memory.max; before a process is added."""
        write_file(os.path.join(self.directory, name), content)

    def is_populated(self) -> bool:
        """Return whether a process lives in the cgroup or below."""
        return _read_counts(os.path.join(self.directory, "cgroup.events")).get("populated", 0) > 0

    def count_oom_kills(self) -> int | None:
        """Return how many processes in the cgroup or below were OOM-killed; None without a memory controller."""
        return _read_counts(os.path.join(self.directory, "memory.events")).get("oom_kill")

    def was_oom_group_killed(self) -> bool:
        """Return whether the OOM killer killed all processes of the cgroup at once, as memory.oom.group asks for."""
        return _read_counts(os.path.join(self.directory, "memory.events")).get("oom_group_kill", 0) > 0

    def list_pids(self) -> list[int]:
        """Return the pids of the processes that live in the cgroup or below."""
        return [pid for directory in _list_tree(self.directory) for pid in _read_pids(directory)]

    def kill_processes(self) -> None:
        """SIGKILL all processes in the cgroup or below, without waiting until they are gone (`is_populated`)."""
        try:
            write_file(os.path.join(self.directory, self._kill_file), "1")
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EOPNOTSUPP):
                raise
            # Linux before 5.14; or the cgroup is gone, and the list is empty.
            for directory in _list_tree(self.directory):
                _kill_each(directory)

    def remove(self) -> bool:
        """Remove the cgroup and those below it; return False while a process lives there."""
        try:
            for directory in reversed(_list_tree(self.directory)):
                os.rmdir(directory)
        except OSError as error:
            if error.errno == errno.EBUSY:
                return False
            if error.errno != errno.ENOENT:
                raise
        return True


def write_file(path: str, text: str) -> None:
    """Write a cgroup file in one write(2), as the kernel expects. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def read_lines(path: str) -> list[str]:
    """Read a file's lines: [] when the file or its cgroup is gone (ENODEV: removed while the file was open)."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read().splitlines()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
            return []
        raise


def _read_counts(path: str) -> dict[str, int]:
    return {name: int(value) for name, _, value in (line.partition(" ") for line in read_lines(path))}


def _list_tree(top: str) -> list[str]:
    """Return `top` and all directories below, parents first."""
    found = [top]
    for directory in found:
        try:
            with os.scandir(directory) as entries:
                found += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            continue
    return found


def _read_pids(directory: str) -> list[int]:
    # A process outside our pid namespace reads as 0.
    return [pid for pid in map(int, read_lines(os.path.join(directory, "cgroup.procs"))) if pid > 0]


def _kill_each(directory: str) -> None:
    """SIGKILL each process once; the caller comes again for those that are forked meanwhile."""
    pids = _read_pids(directory)
    for first in range(0, len(pids), _PIDFDS_AT_ONCE):
        _kill_batch(directory, pids[first : first + _PIDFDS_AT_ONCE])


def _kill_batch(directory: str, pids: list[int]) -> None:
    opened: dict[int, int] = {}
    try:
        for pid in pids:
            try:
                opened[pid] = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
        # Only pids that are still listed: before its pidfd was open a pid may have passed to a process of no run.
        for pid in opened.keys() & set(_read_pids(directory)):
            try:
                signal.pidfd_send_signal(opened[pid], signal.SIGKILL)
            except ProcessLookupError:
                continue
    finally:
        for pidfd in opened.values():
            os.close(pidfd)
