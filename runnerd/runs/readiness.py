"""Reads how long a run's process took until it was ready, from the file that the process has written, and removes it.

Invariant: nothing depends on the file: it may be missing, and it holds whatever the flow's user likes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os

from runnerd.core.machine import RunRecord
from runnerd.files.regular import read_start
from runnerd.launch.start_time import READY_MAX_BYTES, ready_after_s, ready_file


async def take_ready(record: RunRecord) -> float | None:
    """Return the seconds from the run's claim until its process was ready; None where that is not known."""
    path = ready_file(record, record.output)
    if path is None:
        return None
    return ready_after_s(record, await asyncio.to_thread(_take, path))


def _take(path: str) -> str:
    """Read the file and remove it; nothing of what is no regular file."""
    text = ""
    with contextlib.suppress(OSError):
        text = read_start(path, max_bytes=READY_MAX_BYTES, flags=os.O_RDONLY | os.O_NOFOLLOW).decode("ascii", "replace")
    with contextlib.suppress(OSError):
        os.unlink(path)
    return text
