"""`runnerd --daemonize`: starts the daemon in the background, for hosts without systemd.

Invariants: errors that can be detected beforehand are printed on the terminal before detaching. The command returns 0
only after the daemon has adopted its runs; a daemon that dies earlier closes the pipe to the command, which ends its
wait. A daemon is running exactly while the PID file is locked, whatever PID is in the file, so a stale file prevents no
start and its PID is never taken for a running daemon. A log that cannot be written does not end the daemon.

The locks are taken before detaching. They belong to the open files and survive the forks, so no other process can take
them between the check and the daemon. python-daemon is imported in this module only.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from runnerd.core.errors import RunnerdError
from runnerd.daemon.log_file import LogFile
from runnerd.daemon.pid_file import PidFile
from runnerd.system.directories import lock_state, make_directories, write_pid
from runnerd.system.paths import Paths

if TYPE_CHECKING:  # its make_log captures sys.stderr at import, before `take_stderr` replaces it
    from runnerd.log.log import Log


class Background:
    """Holds the detached daemon's log, PID file and the pipe to the command, which waits until the daemon is ready."""

    def __init__(self, *, pid_file: PidFile, log_file: LogFile, starter: int) -> None:
        self.stream = log_file.take_stderr()
        self._pid_file = pid_file
        self._log_file = log_file
        self._log: Log | None = None
        self._starter: int | None = starter

    def begin(self, log: Log) -> None:
        """Write the PID file and keep `log`, which writes to `stream`. Raises RunnerdError."""
        self._log = log
        self._pid_file.write_pid()
        if self._pid_file.stale:
            log.warning("replaced a stale PID file", file=self._pid_file.path, pid=self._pid_file.stale)

    def reopen_log(self) -> None:
        """Reopen the log file, at each SIGHUP, because it may have been rotated."""
        try:
            self._log_file.reopen()
        except RunnerdError as error:
            if self._log is not None:
                self._log.error("cannot reopen the log; going on in the old file", why=str(error))

    def report_ready(self) -> None:
        """End the command with status 0."""
        self._send(ready=True)
        self._close_pipe()

    def report_failure(self, text: str) -> None:
        """Print on the terminal, and log, why the daemon cannot go on."""
        self._send(said=text)
        if self._log is not None:
            self._log.error(text)

    def report_end(self, status: int) -> None:
        """End the command with the daemon's exit status, if the command still waits."""
        self._send(ended=status)
        self._close_pipe()

    def _send(self, **message: str | int) -> None:
        if self._starter is not None:
            with contextlib.suppress(BrokenPipeError):  # the command was interrupted; the daemon goes on
                os.write(self._starter, json.dumps(message).encode() + b"\n")

    def _close_pipe(self) -> None:
        if self._starter is not None:
            os.close(self._starter)
            self._starter = None


def start_daemon(
    *, paths: Paths, pid_file: str, log_file: str, environ: Mapping[str, str], serve: Callable[[Background], int]
) -> int:
    """Detach a daemon and call `serve` in it; return the exit status.

    Returns twice: in the command, once the daemon is ready or has failed, and in the daemon, once it has ended. Raises
    RunnerdError, in the command only, when the daemon cannot be detached.
    """
    _check_can_detach(environ, os.getpid())
    make_directories(paths)
    with contextlib.ExitStack() as undo:
        locked = PidFile(pid_file)
        undo.callback(locked.restore)
        state = undo.enter_context(lock_state(paths))
        log = undo.enter_context(LogFile(log_file))
        reading, writing = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        detached = _fork() == 0
        undo.pop_all()
    if not detached:
        # Only the daemon may keep these open: its end must close the pipe and release the locks.
        locked.close()
        state.close()
        log.close()
        os.close(writing)
        return _wait_until_ready(reading, log_file)
    _detach([locked.fd, state.fileno(), log.fileno(), writing])
    try:
        background = Background(pid_file=locked, log_file=log, starter=writing)
        write_pid(state)
        status = serve(background)
        background.report_end(status)
        return status
    finally:
        locked.remove()


def _check_can_detach(environ: Mapping[str, str], pid: int) -> None:
    if environ.get("NOTIFY_SOCKET"):
        raise RunnerdError(
            "cannot detach: a service manager started this process and waits for it (NOTIFY_SOCKET is set);"
            " use Type=notify and no --daemonize"
        )
    if pid == 1:
        raise RunnerdError("cannot detach: a container ends with its process 1; leave --daemonize out")


def _fork() -> int:
    try:
        return os.fork()
    except OSError as error:
        raise RunnerdError(f"cannot detach: {error.strerror}; see ulimit -u") from error


def open_standard_streams() -> None:
    """Open /dev/null for each of descriptors 0 to 2 that is closed, as some init scripts leave them.

    Has to be called before any other file is opened, which would get such a number.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))


def _detach(keep: list[int]) -> None:
    with lowered_descriptor_limit():
        from daemon import DaemonContext

    DaemonContext(
        working_directory="/",
        umask=0o022,
        detach_process=True,  # by default python-daemon does not detach a child of process 1
        prevent_core=False,  # the spawner and the flows would inherit the core limit of 0
        signal_map={},  # python-daemon's SIGTERM handler raises SystemExit anywhere; the daemon installs its own
        files_preserve=keep,
    ).open()


@contextlib.contextmanager
def lowered_descriptor_limit(most: int = 1 << 20) -> Iterator[None]:
    """Lower RLIMIT_NOFILE to `most`: at import, python-daemon 2.3 makes a set of all descriptors up to the limit.

    On some hosts the limit is a billion.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard <= most:
        yield
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, most), most))
    yield
    with contextlib.suppress(ValueError, OSError):  # only root may raise the limit again; a million suffices otherwise
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _wait_until_ready(reading: int, log_file: str) -> int:
    """Read the detached daemon's messages until it is ready or has ended; return the command's exit status."""
    status = None
    try:
        with open(reading, encoding="utf-8") as pipe:
            for line in pipe:
                message = json.loads(line)
                if "ready" in message:
                    return 0
                if "said" in message:
                    _complain(message["said"])
                status = message.get("ended", status)
    except KeyboardInterrupt:
        _complain(f"the daemon goes on starting in the background; see {log_file}")
        return 130
    if not status:
        _complain(f"the daemon ended before it was ready; see {log_file}")
    return status or 1


def _complain(text: str) -> None:
    sys.stderr.write(f"runnerd: {text}\n")
