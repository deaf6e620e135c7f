"""Fork a child that waits for `release()` before it executes the run's program.

The child sets itself up, then blocks on a pipe, so that the spawner can write the child's identity to disk first. If
the spawner dies before `release()`, the child reads end-of-file and exits, and no program ran. What fails in the child,
the exec included, is read from `status_fd`: end-of-file without data means that the exec succeeded.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial

from runnerd.spawner.child.account import Privileges
from runnerd.spawner.child.sender import Fits, run_sender
from runnerd.spawner.child.setup import run_child
from runnerd.spawner.io.messages import Launch
from runnerd.spawner.proc.identity import read_start_ticks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


class Child:
    """A child that waits on its pipe. Only the spawner can reap a child, so pid and pidfd stay valid."""

    __slots__ = ("_release_fd", "pid", "pidfd", "start_ticks", "status_fd")

    def __init__(self, *, pid: int, pidfd: int, start_ticks: int | None, release_fd: int, status_fd: int) -> None:
        self.pid = pid
        self._release_fd = release_fd
        self.status_fd = status_fd
        self.start_ticks = start_ticks
        self.pidfd = pidfd

    def release(self) -> None:
        """Have the child execute the run's program."""
        try:
            os.write(self._release_fd, b"g")
        except BrokenPipeError:
            pass  # the child's set-up failed and it exited; status_fd says why
        finally:
            os.close(self._release_fd)

    def abandon(self) -> None:
        """End the child without the run's program."""
        signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        for fd in (self._release_fd, self.status_fd, self.pidfd):
            os.close(fd)

    def explain(self, report: bytes) -> SetupReport:
        """Read what the child wrote to its status pipe before it exited."""
        stage, number, message = report.decode("utf-8", "replace").split("\n", 2)
        return SetupReport(stage=stage, number=int(number) if number else None, message=message)


class Forker:
    """Forks the children that become runs."""

    def __init__(self, privileges: Privileges) -> None:
        self._privileges = privileges

    @property
    def owner(self) -> int | None:
        """The uid that owns the output files; None when the spawner is not root and can write its own files only."""
        return self._privileges.owner if self._privileges.root else None

    def check_user(self, launch: Launch) -> None:
        """Check that the run may be started as its user. Raises SetupFailed."""
        self._privileges.check_name(launch)

    def fork(self, launch: Launch, channel_fd: int | None = None) -> Child:
        """Fork a child for the run, with `channel_fd` as descriptor 3 of a warm interpreter.

        Raises OSError when out of processes or descriptors.
        """
        pipes: list[int] = []
        try:
            pipes += os.pipe()
            pipes += os.pipe()
            pid = self._fork(partial(run_child, launch, self._privileges, pipes[0], pipes[3], channel_fd))
        except OSError:
            for fd in pipes:
                os.close(fd)
            raise
        os.close(pipes[0])
        os.close(pipes[3])
        try:
            ticks = read_start_ticks(pid)
            return Child(pid=pid, pidfd=os.pidfd_open(pid), start_ticks=ticks, release_fd=pipes[1], status_fd=pipes[2])
        except OSError:
            os.close(pipes[1])
            os.close(pipes[2])
            raise

    def fork_sender(self, launch: Launch, request: bytes, *, fits: Fits, channel_fd: int, fds: tuple[int, ...]) -> int:
        """Fork a child that opens the run's files and sends them, and `fds`, to a warm interpreter; return its pid.

        The child exits with status 0 when all is sent, and else with one of child/sender.py. Raises OSError when out of
        processes.
        """
        send = partial(run_sender, launch, self._privileges, request, fits=fits, channel_fd=channel_fd, fds=fds)
        return self._fork(send)

    def _fork(self, run: Callable[[], NoReturn]) -> int:
        # Blocked: a signal to the child before it resets its handlers would be handled as one to the spawner.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            pid = os.fork()
            if pid == 0:
                run()
            return pid
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class SetupReport:
    """Why a child could not be set up, as a record's `error` has it."""

    __slots__ = ("errno", "message", "stage")

    def __init__(self, *, stage: str, number: int | None, message: str) -> None:
        self.stage = stage
        self.errno = number
        self.message = message
