"""The log file of `runnerd --daemonize`."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

from runnerd.core.errors import RunnerdError


class LogFile(io.RawIOBase):
    """A stream that writes to the log file; after `take_stderr` the file gets what libraries print to stderr too."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = _open_log(path)
        self._line_cut = False

    def take_stderr(self) -> io.TextIOWrapper:
        """Redirect stderr to the file; return the new sys.stderr."""
        os.dup2(self._fd, 2)
        os.close(self._fd)
        self._fd = 2
        sys.stderr = io.TextIOWrapper(self, encoding="utf-8", errors="backslashreplace", line_buffering=True)
        return sys.stderr

    def reopen(self) -> None:
        """Open the path again, after a rotation. Raises RunnerdError, and then goes on writing to the old file."""
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
        """Write as much as possible and report success: a full disk must not end the daemon with an exception."""
        text = bytes(data)
        try:
            left = b"\n" + text if self._line_cut else text
            while left:
                left = left[os.write(self._fd, left) :]
            self._line_cut = False
        except OSError:
            self._line_cut = True  # part of a line may be in the file, so the next write begins with a newline
        return len(text)


def _open_log(path: str) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOCTTY | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise RunnerdError(f"cannot write the log {path}: {error.strerror}; choose another with --log-file") from error
