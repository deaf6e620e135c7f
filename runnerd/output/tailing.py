"""One run's output on its way from its file to systemd's journal: lines, their entries, and how many of them may pass.

Invariants: a line is sent whole or, beyond LINE_MAX, in pieces, and in its order; the position moves only over what was
sent or left out, so whoever goes on from it neither repeats nor loses a line; what is left out is counted.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from runnerd.core.machine import Phase, RunRecord
from runnerd.log.journald import encode
from runnerd.output.output_file import BLOCK, read_block

LINE_MAX = 48 * 2**10  # journald's own bound for the lines of other services
_LINE_COST_BYTES = 1024  # a long line counts for as many as it is long

_LEVEL = re.compile(rb"\d\d:\d\d:\d\d\.\d{3} \| (DEBUG|WARNING|ERROR|CRITICAL) *\|")
_PRIORITIES = {b"DEBUG": "7", b"WARNING": "4", b"ERROR": "3", b"CRITICAL": "2"}
_INFO = "6"
_NOT_IN_IDENTIFIERS = re.compile(r"[^A-Za-z0-9_.@-]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """How far the output of one attempt of a run was forwarded."""

    run: str
    attempt: int
    path: str
    name: str
    deployment: str
    flow: str
    pool: str | None = None
    offset: int = 0
    left_out: int = 0  # lines that nobody was told of yet

    @property
    def key(self) -> tuple[str, int]:
        return (self.run, self.attempt)


def tail_of(record: RunRecord) -> Tail | None:
    """A new one; None while this attempt has no output, or where its pool does not want it in the journal.

    Until it is started, its record names the last attempt's.
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


class Allowance:
    """So many lines in so many seconds, counted from window to window; who asked for one too many waits for the next.

    journald counts per service too, and drops what is beyond: our own messages with it.
    """

    def __init__(self, *, lines: int, window_s: float, clock: Callable[[], float]) -> None:
        self.lines = lines
        self.window_s = window_s
        self._clock = clock
        self._window = -1
        self._left = 0

    def left(self) -> int:
        window = int(self._clock() / self.window_s)
        if window != self._window:
            self._window, self._left = window, self.lines
        return self._left

    def take(self, count: int) -> bool:
        enough = self.left() >= count
        self._left = self._left - count if enough else 0
        return enough


class Outcome(StrEnum):
    """What became of one step."""

    MOVED = "moved"
    END = "end"  # of the file, for now
    STUCK = "stuck"  # journald takes nothing


def forward(
    tail: Tail, *, over: bool, allowances: tuple[Allowance, ...], send: Callable[[bytes], bool]
) -> tuple[Tail, Outcome]:
    """Send the next block of lines; `over`: nothing more will be written, so the last line may lack its end.

    Raises OSError when there is a file and it cannot be read.
    """
    if tail.left_out and all(allowance.left() for allowance in allowances):
        if not send(left_out_entry(tail, allowances)):
            return tail, Outcome.STUCK
        tail = replace(tail, left_out=0)
    block, after = read_block(tail.path, tail.offset)
    start, at, left_out = after - len(block), 0, 0
    whole = over and len(block) < BLOCK
    head = encode(fields_of(tail))
    while (found := _next_line(block, at, whole=whole)) is not None:
        line, behind = found
        if line and not all(allowance.take(1 + len(line) // _LINE_COST_BYTES) for allowance in allowances):
            behind = max(block.rfind(b"\n") + 1, behind)
            left_out += block.count(b"\n", at, behind) or 1
        elif line and not send(head + encode({"PRIORITY": _priority(line), "MESSAGE": line})):
            return replace(tail, offset=start + at, left_out=tail.left_out + left_out), Outcome.STUCK
        at = behind
    moved = start + at != tail.offset
    tail = replace(tail, offset=start + at, left_out=tail.left_out + left_out)
    return tail, Outcome.MOVED if moved else Outcome.END


def _next_line(block: bytes, at: int, *, whole: bool) -> tuple[bytes, int] | None:
    """The line that begins at `at`, without the white space at its end, and where the next begins."""
    end = block.find(b"\n", at, at + LINE_MAX + 1)
    if end >= 0:
        return block[at:end].rstrip(), end + 1
    if len(block) - at > LINE_MAX:
        end = _between_characters(block, at + LINE_MAX)
    elif whole and at < len(block):
        end = len(block)
    else:
        return None
    return block[at:end].rstrip(), end


def _between_characters(block: bytes, end: int) -> int:
    """`end` or a little before, so that no character of UTF-8 is cut in two."""
    for back in range(4):
        if block[end - back] & 0xC0 != 0x80:
            return end - back
    return end


def _priority(line: bytes) -> str:
    """What the line says of itself, where it is written by Prefect's logging."""
    match = _LEVEL.match(line)
    return _PRIORITIES[match[1]] if match else _INFO


def fields_of(tail: Tail) -> dict[str, str]:
    """What the journal has of each of its lines."""
    known = {"RUNNERD_DEPLOYMENT": tail.deployment, "RUNNERD_FLOW": tail.flow, "RUNNERD_POOL": tail.pool or "?"}
    return {
        "SYSLOG_IDENTIFIER": _identifier(tail.deployment),
        "RUNNERD_RUN_ID": tail.run,
        "RUNNERD_RUN_NAME": tail.name,
        "RUNNERD_ATTEMPT": str(tail.attempt),
        **{name: value for name, value in known.items() if value != "?"},
    }


def _identifier(deployment: str) -> str:
    """The deployment's name as a syslog tag, which is never our own."""
    text = _NOT_IN_IDENTIFIERS.sub("_", deployment)[:64].strip("_")
    return text if text and text != "runnerd" else f"flow_{text}".rstrip("_")


def left_out_entry(tail: Tail, allowances: tuple[Allowance, ...]) -> bytes:
    """Says how many lines are missing here, and where they are."""
    bound = min(allowance.lines / allowance.window_s for allowance in allowances)
    words = (
        f"runnerd left out {tail.left_out} lines here: more than {bound:g} a second; runnerctl logs {tail.run} has them"
    )
    told = {"PRIORITY": "4", "RUNNERD_LEFT_OUT": str(tail.left_out), "MESSAGE": words}
    return encode({**fields_of(tail), **told})
