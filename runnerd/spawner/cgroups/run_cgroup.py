"""A run's own cgroup: its limits, who is in it, and its end.

* Membership survives setsid, a double fork and the death of every parent, and killing it cannot be outrun by forking.
* Limits are written while nobody is in it who could exceed them.
Where they are made is in `cgroups`, where they may be made in `delegation`.
"""

from __future__ import annotations

import errno
import os
import signal

_KILL_FILE = "cgroup.kill"
_PIDS_AT_ONCE = 64  # each takes a descriptor


class Cgroup:
    """One run's. What is gone already is no error; otherwise its methods raise OSError."""

    __slots__ = ("_kill_file", "directory")

    def __init__(self, directory: str, *, kill_file: str = _KILL_FILE) -> None:
        self.directory = directory
        self._kill_file = kill_file

    def place(self, pid: int) -> None:
        """Put a process in, and all that it will ever fork."""
        write(os.path.join(self.directory, "cgroup.procs"), str(pid))

    def set(self, name: str, content: str) -> None:
        """Write one of its files, such as memory.max: before anybody is put in."""
        write(os.path.join(self.directory, name), content)

    def populated(self) -> bool:
        """Whether a process lives in it or below."""
        return _counts(os.path.join(self.directory, "cgroup.events")).get("populated", 0) > 0

    def killed_for_memory(self) -> int | None:
        """How many processes in it or below the kernel killed for want of memory; None without a memory controller."""
        return _counts(os.path.join(self.directory, "memory.events")).get("oom_kill")

    def killed_whole(self) -> bool:
        """Whether the kernel killed all that lived in it for want of memory, as memory.oom.group has it do."""
        return _counts(os.path.join(self.directory, "memory.events")).get("oom_group_kill", 0) > 0

    def members(self) -> list[int]:
        """The pids of what lives in it or below."""
        return [pid for directory in _tree(self.directory) for pid in _members(directory)]

    def kill(self) -> None:
        """SIGKILL to all that live in it or below. They go in their own time: see `populated`."""
        try:
            write(os.path.join(self.directory, self._kill_file), "1")
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EOPNOTSUPP):
                raise
            # Before Linux 5.14, or gone, which the listing below shows.
            for directory in _tree(self.directory):
                _kill_each(directory)

    def remove(self) -> bool:
        """Remove it and what was made below it; False while a process lives there."""
        try:
            for directory in reversed(_tree(self.directory)):
                os.rmdir(directory)
        except OSError as error:
            if error.errno == errno.EBUSY:
                return False
            if error.errno != errno.ENOENT:
                raise
        return True


def write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def lines(path: str) -> list[str]:
    """None of a file or cgroup that is gone; ENODEV is a cgroup removed while its file was open."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read().splitlines()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
            return []
        raise


def _counts(path: str) -> dict[str, int]:
    return {name: int(value) for name, _, value in (line.partition(" ") for line in lines(path))}


def _tree(top: str) -> list[str]:
    """It and all below it, parents first."""
    found = [top]
    for directory in found:
        try:
            with os.scandir(directory) as entries:
                found += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            continue
    return found


def _members(directory: str) -> list[int]:
    # A process of a pid namespace that is none of ours reads as 0.
    return [pid for pid in map(int, lines(os.path.join(directory, "cgroup.procs"))) if pid > 0]


def _kill_each(directory: str) -> None:
    """Once each; who forks meanwhile is for the caller's next pass."""
    pids = _members(directory)
    for first in range(0, len(pids), _PIDS_AT_ONCE):
        _kill_some(directory, pids[first : first + _PIDS_AT_ONCE])


def _kill_some(directory: str, pids: list[int]) -> None:
    opened: dict[int, int] = {}
    try:
        for pid in pids:
            try:
                opened[pid] = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
        # Only who is still listed: a pid may have passed to a stranger before its pidfd was open.
        for pid in opened.keys() & set(_members(directory)):
            try:
                signal.pidfd_send_signal(opened[pid], signal.SIGKILL)
            except ProcessLookupError:
                continue
    finally:
        for pidfd in opened.values():
            os.close(pidfd)
