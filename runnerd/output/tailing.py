"""Forwards one run's output file to systemd's journal: finds its lines, makes their entries, limits their rate.

Invariants: lines are sent in order, whole or, beyond LINE_MAX_BYTES, in pieces; the offset moves only past lines that
were sent or left out, so a successor that goes on from the offset neither repeats nor loses a line; lines left out
because of a rate limit are counted.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from runnerd.core.machine import Phase, RunRecord
from runnerd.log.journald import encode
from runnerd.output.output_file import BLOCK_BYTES, read_block

LINE_MAX_BYTES = 48 * 2**10  # journald's default LineMax= for the output of services
_BYTES_PER_COUNTED_LINE = 1024  # a line of n KiB counts as n more lines against the rate limits

_LEVEL = re.compile(rb"\d\d:\d\d:\d\d\.\d{3} \| (DEBUG|WARNING|ERROR|CRITICAL) *\|")
_PRIORITIES = {b"DEBUG": "7", b"WARNING": "4", b"ERROR": "3", b"CRITICAL": "2"}
_INFO = "6"
_NOT_IN_IDENTIFIERS = re.compile(r"[^A-Za-z0-9_.@-]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """How far the output of one attempt of a run was forwarded; what the positions file stores."""

    run: str
    attempt: int
    path: str
    name: str
    deployment: str
    flow: str
    pool: str | None = None
    offset: int = 0
    left_out: int = 0  # lines left out since the last entry that reported a number

    @property
    def key(self) -> tuple[str, int]:
        return (self.run, self.attempt)


def make_tail(record: RunRecord) -> Tail | None:
    """Make the tail of a run's present attempt, at offset 0.

    None while this attempt has no output file yet, because until the start the record names the output of the attempt
    before; None also where the run's pool turned streaming of output off.
    """
    if record.phase in (Phase.CLAIMING, Phase.STARTING, Phase.DONE):
        return None
    if record.output is None or not record.output.endswith(f".{record.attempt}.log"):
        return None
    if not record.stream_output:
        return None
    return Tail(
        run=record.id,
        attempt=record.attempt,
        path=record.output,
        name=record.name,
        deployment=record.deployment,
        flow=record.flow,
        pool=record.pool,
    )


class RateLimit:
    """Allows `lines` lines per window of `window_s` seconds; after one refusal, none until the next window.

    journald has a rate limit per service, and beyond it drops the daemon's own messages too, so ours is lower.
    """

    def __init__(self, *, lines: int, window_s: float, clock: Callable[[], float]) -> None:
        self.lines = lines
        self.window_s = window_s
        self._clock = clock
        self._window = -1
        self._left = 0

    def left(self) -> int:
        """Return how many lines are still allowed in the present window."""
        window = int(self._clock() / self.window_s)
        if window != self._window:
            self._window, self._left = window, self.lines
        return self._left

    def take(self, count: int) -> bool:
        """Use up `count` lines; False when fewer are left, and then none is left."""
        enough = self.left() >= count
        self._left = self._left - count if enough else 0
        return enough


class BlockOutcome(StrEnum):
    """How forwarding one block ended."""

    MOVED = "moved"  # lines were sent or left out; there may be more
    END = "end"  # no whole line is left in the file now
    STUCK = "stuck"  # journald takes nothing now


def forward(
    tail: Tail, *, over: bool, limits: tuple[RateLimit, ...], send: Callable[[bytes], bool]
) -> tuple[Tail, BlockOutcome]:
    """Send the lines of the next block; return the tail moved past them.

    `over`: nothing more will be written, so a last line without a newline is sent too. `send` returns False when
    journald does not take the entry. Raises OSError when the output file exists and cannot be read.
    """
    if tail.left_out and all(limit.left() for limit in limits):
        if not send(left_out_entry(tail, limits)):
            return tail, BlockOutcome.STUCK
        tail = replace(tail, left_out=0)
    block, after = read_block(tail.path, tail.offset)
    start, at, left_out = after - len(block), 0, 0
    whole = over and len(block) < BLOCK_BYTES
    head = encode(journal_fields(tail))
    while (found := _next_line(block, at, whole=whole)) is not None:
        line, behind = found
        if line and not all(limit.take(1 + len(line) // _BYTES_PER_COUNTED_LINE) for limit in limits):
            behind = max(block.rfind(b"\n") + 1, behind)  # the rest of the block is left out at once
            left_out += block.count(b"\n", at, behind) or 1
        elif line and not send(head + encode({"PRIORITY": _priority(line), "MESSAGE": line})):
            return replace(tail, offset=start + at, left_out=tail.left_out + left_out), BlockOutcome.STUCK
        at = behind
    moved = start + at != tail.offset
    tail = replace(tail, offset=start + at, left_out=tail.left_out + left_out)
    return tail, BlockOutcome.MOVED if moved else BlockOutcome.END


def _next_line(block: bytes, at: int, *, whole: bool) -> tuple[bytes, int] | None:
    """Return the line that begins at `at`, without trailing white space, and where the next line begins.

    None when the line has no newline yet. `whole`: the block ends with the file's last line, newline or not.
    """
    end = block.find(b"\n", at, at + LINE_MAX_BYTES + 1)
    if end >= 0:
        return block[at:end].rstrip(), end + 1
    if len(block) - at > LINE_MAX_BYTES:
        end = _between_characters(block, at + LINE_MAX_BYTES)
    elif whole and at < len(block):
        end = len(block)
    else:
        return None
    return block[at:end].rstrip(), end


def _between_characters(block: bytes, end: int) -> int:
    """Return `end`, or up to 3 bytes before, so that no UTF-8 character is cut in two."""
    for back in range(4):
        if block[end - back] & 0xC0 != 0x80:
            return end - back
    return end


def _priority(line: bytes) -> str:
    """Return syslog's priority for the level that Prefect's console logging put into the line; info without one."""
    match = _LEVEL.match(line)
    return _PRIORITIES[match[1]] if match else _INFO


def journal_fields(tail: Tail) -> dict[str, str]:
    """Return the journal fields that all entries of this tail have."""
    known = {"RUNNERD_DEPLOYMENT": tail.deployment, "RUNNERD_FLOW": tail.flow, "RUNNERD_POOL": tail.pool or "?"}
    return {
        "SYSLOG_IDENTIFIER": _identifier(tail.deployment),
        "RUNNERD_RUN_ID": tail.run,
        "RUNNERD_RUN_NAME": tail.name,
        "RUNNERD_ATTEMPT": str(tail.attempt),
        **{name: value for name, value in known.items() if value != "?"},
    }


def _identifier(deployment: str) -> str:
    """Make a syslog identifier from the deployment's name; never "runnerd", which is the daemon's own."""
    text = _NOT_IN_IDENTIFIERS.sub("_", deployment)[:64].strip("_")
    return text if text and text != "runnerd" else f"flow_{text}".rstrip("_")


def left_out_entry(tail: Tail, limits: tuple[RateLimit, ...]) -> bytes:
    """Make the entry that says how many lines are missing here, and which command shows them."""
    bound = min(limit.lines / limit.window_s for limit in limits)
    message = (
        f"runnerd left out {tail.left_out} lines here: more than {bound:g} a second; runnerctl logs {tail.run} has them"
    )
    fields = {"PRIORITY": "4", "RUNNERD_LEFT_OUT": str(tail.left_out), "MESSAGE": message}
    return encode({**journal_fields(tail), **fields})
