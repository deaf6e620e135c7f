"""Log to stderr, one line an event; a stderr that is closed or full never stops the spawner."""

from __future__ import annotations

import os
import sys


def log(message: str) -> None:
    """Write one line to stderr; what it quotes from a request adds no line."""
    if not message.isprintable():
        message = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in message)
    try:
        os.write(2, f"runnerd-spawner: {message}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        return  # the reader of stderr is gone: the runs matter more


def log_traceback() -> None:
    """Print the exception being handled, by the interpreter's own hook: the module `traceback` costs memory."""
    try:
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
    except OSError:
        return
