"""One line on stderr per event; a stderr that is gone or full never stops the spawner."""

from __future__ import annotations

import os
import sys


def log(message: str) -> None:
    try:
        os.write(2, f"runnerd-spawner: {message}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        return  # the reader of our stderr is gone: the runs matter more


def log_traceback() -> None:
    """Print the exception being handled; the interpreter's own printer, since `traceback` costs memory."""
    try:
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
    except OSError:
        return
