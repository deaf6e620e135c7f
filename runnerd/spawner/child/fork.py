"""Forks a child that waits for a word before it becomes the run.

The child does all its setting up, then blocks on a pipe. Its identity can be put on disk before `go()`; if the spawner
dies first, the child reads end-of-file and exits, and nothing ran. What fails in the child, exec included, comes back
through `status_fd`: end-of-file without a word means the exec succeeded.
"""

from __future__ import annotations

import os
import signal

from runnerd.spawner.child.setup import Host, run_child
from runnerd.spawner.io.messages import Launch
from runnerd.spawner.proc.identity import start_ticks


class Child:
    """A child held at its go-pipe. pid and pidfd are sure: nobody but us can reap it."""

    __slots__ = ("_go_fd", "pid", "pidfd", "start_ticks", "status_fd")

    def __init__(self, *, pid: int, go_fd: int, status_fd: int) -> None:
        self.pid = pid
        self._go_fd = go_fd
        self.status_fd = status_fd
        self.start_ticks = start_ticks(pid)
        self.pidfd = os.pidfd_open(pid)

    def go(self) -> None:
        try:
            os.write(self._go_fd, b"g")
        except BrokenPipeError:
            pass  # it failed to set up and is gone; status_fd tells
        finally:
            os.close(self._go_fd)

    def abandon(self) -> None:
        """Let it exit without having run anything."""
        for fd in (self._go_fd, self.status_fd, self.pidfd):
            os.close(fd)


class Launcher:
    def __init__(self, host: Host) -> None:
        self._host = host

    @property
    def owner(self) -> int | None:
        """Whose files the runs' outputs are, where we could write others' too."""
        return self._host.owner if self._host.root else None

    def check(self, launch: Launch) -> None:
        """Whether it may be started at all. Raises SetupFailed."""
        self._host.users.check_name(launch.user)

    def fork(self, launch: Launch) -> Child:
        """Raises OSError when there is no room for another process or descriptor."""
        pipes: list[int] = []
        try:
            pipes += os.pipe()
            pipes += os.pipe()
            pid = self._fork(launch, go_fd=pipes[0], status_fd=pipes[3])
        except OSError:
            for fd in pipes:
                os.close(fd)
            raise
        os.close(pipes[0])
        os.close(pipes[3])
        try:
            return Child(pid=pid, go_fd=pipes[1], status_fd=pipes[2])
        except OSError:
            os.close(pipes[1])
            os.close(pipes[2])
            raise

    def _fork(self, launch: Launch, *, go_fd: int, status_fd: int) -> int:
        # A signal that came to the child before it dropped our set-up would be taken for one to us.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            pid = os.fork()
            if pid == 0:
                run_child(launch, self._host, go_fd, status_fd)
            return pid
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Failure:
    """What a child told before it gave up."""

    __slots__ = ("errno", "message", "stage")

    def __init__(self, told: bytes) -> None:
        stage, number, message = told.decode("utf-8", "replace").split("\n", 2)
        self.stage = stage
        self.errno = int(number) if number else None
        self.message = message
