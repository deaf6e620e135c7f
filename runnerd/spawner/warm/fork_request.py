"""Have a warm interpreter fork one process, and check that process.

* The run is started once: the forked process does nothing before its release, and the release pipe is closed before
  the request is given up. What was forked and is not accepted reads end-of-file, and is killed where it is known.
* Both must come within the time limit: the interpreter's answer, which says that the process between the two has ended,
  and the forked process's own `ready`, with which the kernel says its pid.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import time
from collections.abc import Callable
from functools import partial

from runnerd.spawner.child.failures import describe_failed_chdir, describe_failed_mkdir
from runnerd.spawner.child.fork import Child, Forker, SetupReport
from runnerd.spawner.child.sender import OTHER_ACCOUNT
from runnerd.spawner.io.loop import READ, Loop
from runnerd.spawner.io.messages import Launch
from runnerd.spawner.proc.orphans import Orphans
from runnerd.spawner.warm.acceptance import (
    Credentials,
    Unacceptable,
    choose_nice,
    choose_rlimits,
    ensure_limits,
    kill_rejected,
    open_fork,
)

FORK_TIMEOUT_S = 5.0
_DEFAULT_UMASK = 0o022
_REPORT_MAX_BYTES = 4096
_SHOWN = 300  # characters of what a forked process says
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid
_READY = b"ready"
_ENDED = "the forked process has ended before its release"

Done = Callable[[Child | None, str], None]


class ForkedChild(Child):
    """The child of a warm interpreter, which waits on its pipe as a forked child of the spawner does."""

    __slots__ = ("_launch",)

    def __init__(self, launch: Launch, *, pid: int, pidfd: int, start_ticks: int, release_fd: int, status_fd: int):
        super().__init__(pid=pid, pidfd=pidfd, start_ticks=start_ticks, release_fd=release_fd, status_fd=status_fd)
        self._launch = launch

    def explain(self, report: bytes) -> SetupReport:
        """Say what failed: only the stage and the errno are the process's own words."""
        stage, _, text = report[:_SHOWN].decode("ascii", "replace").partition("\n")
        number = int(text) if text.isascii() and text.isdigit() and len(text) < 4 else 0
        error = OSError(number, os.strerror(number))
        if stage == "make-directory":
            message = describe_failed_mkdir(self._launch, error)
        else:
            message = describe_failed_chdir(self._launch, error)
        return SetupReport(stage="working-directory", number=number, message=message)


class ForkRequest:
    """One request; `done` gets the child, or else None and one sentence about what failed."""

    def __init__(self, launch: Launch, *, loop: Loop, forker: Forker, orphans: Orphans, like: Credentials, done: Done):
        self._launch = launch
        self._loop = loop
        self._forker = forker
        self._orphans = orphans
        self._like = like
        self._done = done
        self._release_fd = -1
        self._run_end: socket.socket | None = None  # None: not begun, or over
        self._answered = False
        self._ended = False  # no process has the other end of the run's socket any more
        self._pid: int | None = None
        self._sender: int | None = None  # the pidfd of the process that sends the files, while that lives
        self.unanswered = False  # the interpreter has the request, and did not answer in time

    def begin(self, number: int, channel_fd: int) -> None:
        """Send the request. Raises OSError, and nothing is forked then that does not end by itself."""
        with contextlib.ExitStack() as theirs:
            try:
                release_r, self._release_fd = os.pipe2(os.O_CLOEXEC)
                theirs.callback(os.close, release_r)
                self._run_end, their_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                theirs.callback(their_end.close)
                self._run_end.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
                work = self._write_work()
                theirs.callback(os.close, work)
                fds = (release_r, their_end.fileno(), work)
                request = json.dumps({"fork": number}).encode()
                sender = self._forker.fork_sender(
                    self._launch, request, fits=self._like.has_account, channel_fd=channel_fd, fds=fds
                )
                self._watch_sender(sender)
            except OSError:
                self._close()
                raise
        self._loop.watch_fd(self._run_end.fileno(), READ, self._on_word)
        self._loop.set_timer(self, time.monotonic() + FORK_TIMEOUT_S, self._on_timeout)

    def _write_work(self) -> int:
        """Write what the forked process needs to a file in memory: this may be longer than a message, and secret."""
        launch = self._launch
        work = {
            "argv": launch.argv,
            "environment": launch.environment,
            "directory": launch.working_directory,
            "make_directory": launch.make_directory,
            "umask": _DEFAULT_UMASK if launch.umask is None else launch.umask,
            "nice": choose_nice(launch),
            "rlimits": [(number, *pair) for number, pair in choose_rlimits(launch, self._like).items()],
        }
        fd = os.memfd_create("run", os.MFD_CLOEXEC)
        left = memoryview(json.dumps(work).encode())
        try:
            while left:
                left = left[os.write(fd, left) :]
            os.lseek(fd, 0, os.SEEK_SET)
        except OSError:
            os.close(fd)
            raise
        return fd

    # --- the sender ----------------------------------------------------------------------------------------------

    def _watch_sender(self, pid: int) -> None:
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            os.kill(pid, signal.SIGKILL)  # a child that is not reaped yet: that is done as for an orphan
            raise
        self._orphans.add_leader(pid)  # or the end of a run would kill the sender as an orphan
        self._loop.watch_fd(pidfd, READ, partial(self._on_sender_exit, pid, pidfd))
        self._sender = pidfd

    def _on_sender_exit(self, pid: int, pidfd: int) -> None:
        self._loop.unwatch_fd(pidfd)
        os.close(pidfd)
        self._sender = None
        status = os.waitpid(pid, 0)[1]
        self._orphans.drop_leader(pid)
        self._orphans.reap()
        if os.waitstatus_to_exitcode(status) == OTHER_ACCOUNT:
            self.fail("it has other groups than the run's user has now")
        elif status != 0:
            self.fail("the files of the run cannot be opened, or not be sent to the interpreter")
        elif self._ended and self._answered:
            self.fail(_ENDED)

    # --- the answers ---------------------------------------------------------------------------------------------

    def on_answer(self, problem: str | None) -> None:
        """Take the interpreter's answer: None when it has forked, else why not."""
        if problem is not None:
            self.fail(problem)
            return
        self._answered = True
        if self._ended:
            self.fail(_ENDED)
        self._accept()

    def _on_word(self) -> None:
        if self._run_end is None:
            return
        try:
            room = socket.CMSG_SPACE(_CREDENTIALS.size)
            data, ancillary, _, _ = self._run_end.recvmsg(_REPORT_MAX_BYTES, room, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        pid = _find_pid(ancillary)
        if data == _READY and pid is not None and self._pid is None:
            self._pid = pid
            self._accept()
        elif not data and (self._sender is not None or not self._answered):
            self._ended = True  # how the sender exits, or what the interpreter answers, says more and comes now
            self._loop.unwatch_fd(self._run_end.fileno())
        else:
            self._pid = pid if self._pid is None else self._pid
            word, _, why = data.decode("utf-8", "replace")[:_SHOWN].partition("\n")
            self.fail(why if word == "refused" and why.isprintable() else _ENDED)

    def _on_timeout(self) -> None:
        if self._sender is not None:
            self.fail(f"its files were not opened and sent within {FORK_TIMEOUT_S:g} s")
        elif self._answered:  # so that a directory which does not answer ends no interpreter that others share
            self.fail(f"the forked process was not ready within {FORK_TIMEOUT_S:g} s")
        else:
            self.unanswered = True
            self.fail(f"it did not answer within {FORK_TIMEOUT_S:g} s")

    def _accept(self) -> None:
        if self._pid is None or not self._answered or self._run_end is None:
            return
        try:
            pidfd, ticks = open_fork(self._pid, like=self._like, orphans=self._orphans)
            try:
                ensure_limits(self._pid, self._launch, self._like)
            except BaseException:
                os.close(pidfd)
                raise
        except Unacceptable as refusal:
            self.fail(str(refusal))
        except OSError as error:
            self.fail(f"the forked process cannot be made the run: {error.strerror}")
        else:
            release_fd, status_fd = self._release_fd, self._stop_watching().detach()
            child = ForkedChild(
                self._launch, pid=self._pid, pidfd=pidfd, start_ticks=ticks, release_fd=release_fd, status_fd=status_fd
            )
            self._done(child, "")

    def _stop_watching(self) -> socket.socket:
        assert self._run_end is not None
        run_end, self._run_end = self._run_end, None
        self._loop.cancel_timer(self)
        self._loop.unwatch_fd(run_end.fileno())
        run_end.setblocking(False)
        return run_end

    def fail(self, problem: str) -> None:
        """Give the request up, unless it is over: what was forked cannot run, before `done` is called."""
        if self._run_end is None:
            return
        self._close()
        if self._sender is not None:
            signal.pidfd_send_signal(self._sender, signal.SIGKILL)
        if self._pid is not None:
            kill_rejected(self._pid, self._orphans)
        self._done(None, problem)

    def _close(self) -> None:
        if self._release_fd >= 0:
            os.close(self._release_fd)
        if self._run_end is not None:
            self._stop_watching().close()


def _find_pid(ancillary: list[tuple[int, int, bytes]]) -> int | None:
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS) and len(data) >= _CREDENTIALS.size:
            pid: int = _CREDENTIALS.unpack(data[: _CREDENTIALS.size])[0]
            return pid if pid > 0 else None
    return None
