"""The PID file of `runnerd --daemonize`, whose lock says that a daemon is running."""

from __future__ import annotations

import errno
import fcntl
import os
import stat

from runnerd.core.errors import RunnerdError


class PidFile:
    """Holds the PID file, locked as long as this process or a fork of it has the file open.

    Raises RunnerdError at construction when another process has locked the file, or when it is no PID file.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.fd = _open_locked(path)
        found = os.pread(self.fd, 64, 0).strip()
        if found and not found.isdigit():
            os.close(self.fd)
            raise RunnerdError(f"cannot use {path} as PID file: there is something else in it; choose another")
        self.stale = found.decode() or None  # the PID of an earlier daemon that did not remove the file

    def write_pid(self) -> None:
        """Write this process's PID into the file. Raises RunnerdError."""
        try:
            os.ftruncate(self.fd, 0)
            os.pwrite(self.fd, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            raise RunnerdError(
                f"cannot write the PID file {self.path}: {error.strerror}; see df {self.path}"
            ) from error

    def remove(self) -> None:
        """Remove the file, unless another file has its path now, and close it."""
        if _is_at(self.fd, self.path):
            os.unlink(self.path)
        self.close()

    def restore(self) -> None:
        """Close the file; remove it only if this process has created it."""
        if self.stale is None:
            self.remove()
        else:
            self.close()

    def close(self) -> None:
        """Close the file; it stays locked while a fork has it open."""
        os.close(self.fd)


def _open_locked(path: str) -> int:
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
        os.close(fd)  # the daemon before removed the file between our open and our flock


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False
