"""Says how a command of an administrator's ended, with the last line of its output."""

from __future__ import annotations

import asyncio
import os

from runnerd.core.names import UNFIT
from runnerd.core.process import LaunchSpec
from runnerd.core.units import format_duration
from runnerd.files.regular import open_regular
from runnerd.processes.helper import last_line
from runnerd.processes.link import describe_end
from runnerd.processes.protocol import Record

_TAIL_BYTES = 4096


async def failure_of(record: Record | None, spec: LaunchSpec, *, since: int = 0) -> str | None:
    """Return why the command has failed, in one line; None when it has not. `since`: where its output begins."""
    if record is not None and record.exit is not None and record.exit.code == 0 and record.stop_reason is None:
        return None
    how = describe_end(record, memory_max_bytes=spec.memory_max_bytes)
    if record is not None and record.stop_reason == "timeout":
        how = f"took longer than {format_duration(spec.runtime_max_s)}"
    words = last_line(await asyncio.to_thread(_read_tail, spec.output, since))
    return f"{how}: {UNFIT.sub(' ', words)}" if words else how


async def output_size(path: str) -> int:
    """Return the size of the output file; 0 where there is none yet."""
    try:
        return (await asyncio.to_thread(os.stat, path)).st_size
    except OSError:
        return 0


def _read_tail(path: str, since: int) -> str:
    """Read the end of what was written `since`: the file is in a directory of the daemon's own, its text is not."""
    try:
        descriptor = open_regular(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return ""
    with os.fdopen(descriptor, "rb") as file:
        size = os.fstat(descriptor).st_size
        # The oldest output may have been removed since, to hold output_max: then `since` is beyond its end.
        file.seek(max(size - _TAIL_BYTES, since if since <= size else 0))
        return file.read(_TAIL_BYTES).decode("utf-8", "replace")
