"""Takes the next batch of lines for Prefect's log from the output file of one attempt. Not for the event loop.

Invariants: what is taken depends on the file and the progress alone, so that a batch taken again is the same; at most
RUN_MAX_BYTES or RUN_MAX_LINES of an attempt are sent from its beginning, then TAIL_BYTES of its end; what is left out
is said at its place.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, replace
from datetime import datetime

from runnerd.files.regular import open_regular
from runnerd.output.api_lines import cut_lines
from runnerd.output.api_progress import Pending, Progress
from runnerd.prefect_api.logs import STEP, WARNING, LogLine

RUN_MAX_BYTES = 4 * 2**20
RUN_MAX_LINES = 20_000
TAIL_BYTES = 32 * 2**10
BATCH_MAX_LINES = 500
BATCH_MAX_CHARACTERS = 128 * 2**10  # binary output has five times as many in JSON
_BLOCK_BYTES = 256 * 2**10


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Lines to send; `progress` has them as pending, `after` is the progress once they are sent.

    `more`: there are more in the file already.
    """

    lines: tuple[LogLine, ...]
    more: bool
    progress: Progress
    after: Progress

    @property
    def first(self) -> datetime:
        assert self.progress.pending is not None
        return self.progress.pending.first


def take_batch(path: str, progress: Progress, *, over: bool, now: datetime, advice: str) -> Batch | None:
    """Take the next lines; None where there is none now. Raises OSError where the file cannot be read.

    `over`: nothing is written to the file any more. `advice`: where all of the output is. A pending batch is taken
    again.
    """
    if _is_full(progress) and not progress.in_tail:
        if not over:
            return None
        progress = _enter_tail(path, progress)
    pending = progress.pending
    data, start = _read(path, progress.offset, until=pending.to if pending is not None else None)
    left_out = progress.left_out + max(start - progress.offset, 0)
    is_last = over and len(data) < _BLOCK_BYTES
    lines, to, is_full = _choose_lines(data, is_last=is_last or pending is not None)
    if not lines and pending is not None:  # of what was pending nothing is left in the file
        return take_batch(path, replace(progress, pending=None), over=over, now=now, advice=advice)
    if not lines and not (over and left_out):
        return None
    if left_out:
        lines.insert(0, LogLine(f"runnerd left out {left_out} bytes of output here; {advice}", WARNING))
    first = pending.first if pending is not None else _next_time(progress, now)
    after = replace(
        progress,
        offset=start + to,
        sent_bytes=progress.sent_bytes + to,
        sent_lines=progress.sent_lines + len(lines),
        left_out=0,
        last=first + (len(lines) - 1) * STEP,
        pending=None,
    )
    marked = replace(progress, pending=Pending(to=start + to, first=first, lines=len(lines)))
    more = is_full or pending is not None or len(data) == _BLOCK_BYTES
    return Batch(lines=tuple(lines), more=more, progress=marked, after=after)


def commit(progress: Progress) -> Progress:
    """Return the progress after a pending batch that the API has, of which nothing but the pending is known."""
    pending = progress.pending
    assert pending is not None
    return replace(
        progress,
        offset=pending.to,
        sent_bytes=progress.sent_bytes + max(pending.to - progress.offset, 0),
        sent_lines=progress.sent_lines + pending.lines,
        left_out=0,
        last=pending.first + (pending.lines - 1) * STEP,
        pending=None,
    )


def _is_full(progress: Progress) -> bool:
    return progress.sent_bytes >= RUN_MAX_BYTES or progress.sent_lines >= RUN_MAX_LINES


def _enter_tail(path: str, progress: Progress) -> Progress:
    """Skip to the first line of the last TAIL_BYTES."""
    try:
        size = os.stat(path, follow_symlinks=False).st_size
    except FileNotFoundError:
        size = 0
    start = max(progress.offset, size - TAIL_BYTES)
    if start > progress.offset:
        data, begin = _read(path, start - 1)
        start = begin + data.find(b"\n") + 1 if b"\n" in data else begin + 1
    left_out = progress.left_out + start - progress.offset
    return replace(progress, offset=start, left_out=left_out, in_tail=True)


def _choose_lines(data: bytes, *, is_last: bool) -> tuple[list[LogLine], int, bool]:
    """Return as many lines as a batch may have, the offset behind them, and whether the batch is full."""
    lines: list[LogLine] = []
    to, characters = 0, 0
    for text, behind in cut_lines(data, is_last=is_last):
        lines.append(LogLine(text))
        to = behind
        characters += len(text)
        if len(lines) >= BATCH_MAX_LINES or characters >= BATCH_MAX_CHARACTERS:
            return lines, to, True
    return lines, to, False


def _next_time(progress: Progress, now: datetime) -> datetime:
    """Return a time for the next line: now, but later than the last one, whatever the clock says."""
    return now if progress.last is None else max(now, progress.last + STEP)


def _read(path: str, offset: int, *, until: int | None = None) -> tuple[bytes, int]:
    """Read a block at `offset`, and return it with the offset at which it begins: behind a hole, if there is one.

    The front of the file is punched out to bound its size (run.output_max). Raises OSError where it cannot be read.
    """
    try:
        descriptor = open_regular(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return b"", offset
    try:
        size = os.fstat(descriptor).st_size
        offset = offset if offset <= size else 0  # the process has truncated it
        begin = _skip_hole(descriptor, offset, size)
        most = _BLOCK_BYTES if until is None else max(min(until - begin, _BLOCK_BYTES), 0)
        data = os.pread(descriptor, most, begin)
    finally:
        os.close(descriptor)
    if begin > offset:  # a hole ends at a page, not at a line
        text = data.lstrip(b"\0")
        return text, begin + len(data) - len(text)
    return data, begin


def _skip_hole(descriptor: int, offset: int, size: int) -> int:
    try:
        return os.lseek(descriptor, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return size  # only a hole between `offset` and the end
