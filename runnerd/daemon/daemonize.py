"""`runnerd --daemonize`: the daemon in the background, for hosts without systemd.

Invariants: whatever can be known to be wrong is said on the terminal before anything is detached; the command returns
0 only once the daemon has adopted its runs, and a daemon that dies before that ends the wait by closing its pipe; who
holds the lock on the PID file is running, whatever pid the file names, so a stale one can never stop a start, and
never be taken for somebody else's process; a log that cannot be written does not end the daemon.

The locks are taken before detaching and survive the forks, because they belong to the open files: between the look
and the daemon nobody else can come in. python-daemon is imported here only.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import json
import os
import resource
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from runnerd.core.errors import RunnerdError
from runnerd.system.directories import lock, prepare, sign
from runnerd.system.paths import Paths

if TYPE_CHECKING:  # what loads it takes the stderr of that moment
    from runnerd.log.log import Log


class PidFile:
    """The PID file, locked as long as this process or a fork of it has it open. RunnerdError when another has."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.fd = _locked(path)
        found = os.pread(self.fd, 64, 0).strip()
        if found and not found.isdigit():
            os.close(self.fd)
            raise RunnerdError(f"cannot use {path} as PID file: there is something else in it; choose another")
        self.stale = found.decode() or None  # the pid that an earlier daemon left behind

    def sign(self) -> None:
        """Put our pid into it."""
        try:
            os.ftruncate(self.fd, 0)
            os.pwrite(self.fd, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            raise RunnerdError(
                f"cannot write the PID file {self.path}: {error.strerror}; see df {self.path}"
            ) from error

    def remove(self) -> None:
        """Remove it, unless somebody put another in its place; then let go of it."""
        if _is_at(self.fd, self.path):
            os.unlink(self.path)
        self.close()

    def untouched(self) -> None:
        """Let go of it and leave things as they were found."""
        if self.stale is None:
            self.remove()
        else:
            self.close()

    def close(self) -> None:
        """Let go of it; a fork that has it open keeps it locked."""
        os.close(self.fd)


def _locked(path: str) -> int:
    while True:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
        except OSError as error:
            why = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror
            raise RunnerdError(f"cannot write the PID file {path}: {why}; choose another with --pid-file") from error
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise RunnerdError(f"cannot write the PID file {path}: it is not a file; choose another with --pid-file")
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(fd, 64, 0).decode("ascii", "replace").strip() or "not known yet"
            os.close(fd)
            raise RunnerdError(
                f"runnerd is running already (pid {holder}, PID file {path}); stop that one first, or give this one"
                " a --pid-file and directories of its own"
            ) from None
        if _is_at(fd, path):
            return fd
        os.close(fd)  # its holder removed it while we waited to open or lock it


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False


class LogFile(io.RawIOBase):
    """The log's file as a stream. Once `take_stderr` was called it is descriptor 2, so that what libraries and a
    dying interpreter say is in it too.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = _open_log(path)
        self._cut = False

    def take_stderr(self) -> io.TextIOWrapper:
        """From now on all that goes to stderr goes here; the stream for it."""
        os.dup2(self._fd, 2)
        os.close(self._fd)
        self._fd = 2
        sys.stderr = io.TextIOWrapper(self, encoding="utf-8", errors="backslashreplace", line_buffering=True)
        return sys.stderr

    def reopen(self) -> None:
        """Go on in the file that has the name now; in the old one where that cannot be. Raises RunnerdError."""
        fd = _open_log(self._path)
        os.dup2(fd, self._fd)
        os.close(fd)

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        if not self.closed and self._fd > 2:
            os.close(self._fd)
        super().close()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        """Never fails: a full disk must not end the daemon, and the log is where it would be told."""
        text = bytes(data)
        try:
            left = b"\n" + text if self._cut else text
            while left:
                left = left[os.write(self._fd, left) :]
            self._cut = False
        except OSError:
            self._cut = True  # half a line may be there: the next begins a new one
        return len(text)


def _open_log(path: str) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOCTTY | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise RunnerdError(f"cannot write the log {path}: {error.strerror}; choose another with --log-file") from error


class Background:
    """What the detached daemon has: its log, and until it is ready somebody at a terminal who waits for word of it."""

    def __init__(self, *, pid_file: PidFile, log_file: LogFile, starter: int) -> None:
        self.stream = log_file.take_stderr()
        self._pid_file = pid_file
        self._log_file = log_file
        self._log: Log | None = None
        self._starter: int | None = starter

    def begin(self, log: Log) -> None:
        """Say that it is us. `log` writes to `stream`. Raises RunnerdError."""
        self._log = log
        self._pid_file.sign()
        if self._pid_file.stale:
            log.warning("replaced a stale PID file", file=self._pid_file.path, pid=self._pid_file.stale)

    def reopen(self) -> None:
        """The log's file may have been renamed."""
        try:
            self._log_file.reopen()
        except RunnerdError as error:
            if self._log is not None:
                self._log.error("the log stays in its old file", why=str(error))

    def ready(self) -> None:
        self._tell(ready=True)
        self._hang_up()

    def say(self, text: str) -> None:
        """Why it cannot go on."""
        self._tell(said=text)
        if self._log is not None:
            self._log.error(text)

    def ended(self, status: int) -> None:
        self._tell(ended=status)
        self._hang_up()

    def _tell(self, **message: str | int) -> None:
        if self._starter is not None:
            with contextlib.suppress(BrokenPipeError):  # interrupted at the terminal; the daemon goes on
                os.write(self._starter, json.dumps(message).encode() + b"\n")

    def _hang_up(self) -> None:
        if self._starter is not None:
            os.close(self._starter)
            self._starter = None


def start(
    *, paths: Paths, pid_file: str, log_file: str, environ: Mapping[str, str], serve: Callable[[Background], int]
) -> int:
    """Detach, and call `serve` there. Returns twice: in the starter once the daemon is ready or has failed, and in
    the daemon when that has ended. Raises RunnerdError, in the starter only, when there is no detaching.
    """
    _refuse(environ, os.getpid())
    prepare(paths)
    with contextlib.ExitStack() as undo:
        locked = PidFile(pid_file)
        undo.callback(locked.untouched)
        state = undo.enter_context(lock(paths))
        log = undo.enter_context(LogFile(log_file))
        reading, writing = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        detached = _fork() == 0
        undo.pop_all()
    if not detached:
        # The daemon's own are to be the only ones: its end must end the wait and free its locks.
        locked.close()
        state.close()
        log.close()
        os.close(writing)
        return _await(reading, log_file)
    _detach([locked.fd, state.fileno(), log.fileno(), writing])
    try:
        background = Background(pid_file=locked, log_file=log, starter=writing)
        sign(state)
        status = serve(background)
        background.ended(status)
        return status
    finally:
        locked.remove()


def _refuse(environ: Mapping[str, str], pid: int) -> None:
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
    """First of all: some are closed where init scripts start us, and the next file opened would be taken for one."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))


def _detach(keep: list[int]) -> None:
    with modest_descriptors():
        from daemon import DaemonContext

    DaemonContext(
        working_directory="/",
        umask=0o022,
        detach_process=True,  # left to itself it does not detach what process 1 started
        prevent_core=False,  # the spawner and the flows would inherit that
        signal_map={},  # its SIGTERM handler would raise in whatever is running; the daemon installs its own
        files_preserve=keep,
    ).open()


@contextlib.contextmanager
def modest_descriptors(most: int = 1 << 20) -> Iterator[None]:
    """python-daemon 2.3 makes a set of all possible descriptors when it is imported: a billion on some hosts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard <= most:
        yield
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, most), most))
    yield
    with contextlib.suppress(ValueError, OSError):  # only root may; a million is plenty for everybody else
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _await(reading: int, log_file: str) -> int:
    """Wait for the detached daemon's word; the exit status of the command."""
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
