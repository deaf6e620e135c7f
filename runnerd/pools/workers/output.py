"""Finds the errors in the output of a Prefect worker, or of an installation.

Invariants: the output file is read a bounded part at a time, and never held in memory; flows may have written it, so
the event loop has its turn after each _STEP_BYTES; errors of a worker that runs on
count like those of one that ended, because it may fail every run that it gets.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable

from runnerd.output.output_file import BLOCK_BYTES, read_block

_ENTRY = re.compile(r"\d\d:\d\d:\d\d\.\d+ \| (\w+) *\| (.*)")
_EXCEPTION = re.compile(r"[\w.]+(?::|$)")
_TRACEBACK = "Traceback (most recent call last):"
_NOISE = re.compile(
    r"Received SIG|Worker '.*' (?:started|stopped)!|An exception occurred\.$|\[notice\]|WARNING: |DEPRECATION: "
)
# The prefix of each line of an exception group, and the lines between its parts.
_GROUP = re.compile(r"^ +(?:\+-.*|[|+] ?)")
_STEP_BYTES = 32 * 2**10
_STEPS_PER_READ = 128
_STEPS_AT_END = 8  # what a process prints last says why it ended
_MESSAGE_MAX = 300  # characters


class Findings:
    """Collects errors from lines of output. `errors` counts those logged; `last` is the latest line that matters."""

    def __init__(self) -> None:
        self.errors = 0
        self.error: str | None = None
        self.last: str | None = None
        self._tracing = False
        self._open: str | None = None  # a logged error that the traceback below it may explain

    def read_line(self, line: str) -> None:
        """Read the next line."""
        line = _GROUP.sub("", line.rstrip())
        entry = _ENTRY.match(line)
        if entry is not None:
            self._read_entry(entry.group(1), entry.group(2))
        elif line.endswith(_TRACEBACK):
            self._tracing = True
        elif line and not line[0].isspace() and not _NOISE.match(line):
            self._read_other(line)

    def _read_entry(self, level: str, rest: str) -> None:
        self._tracing, self._open = False, None
        if level in ("ERROR", "CRITICAL"):
            self.errors += 1
            self._open = rest.partition(" - ")[2] or rest
            self._note(self._open)

    def _read_other(self, line: str) -> None:
        if self._tracing and _EXCEPTION.match(line):
            self._tracing = False
            self._note(f"{self._open.rstrip('.:')}: {line}" if self._open else line)
        elif line.startswith("ERROR: "):  # pip's
            self.last = line.removeprefix("ERROR: ")[:_MESSAGE_MAX]
        elif self._open is None and not self._tracing:
            self.last = line[:_MESSAGE_MAX]

    def _note(self, words: str) -> None:
        self.last = words[:_MESSAGE_MAX]
        if self._open is not None:
            self.error = self.last


class WorkerOutput:
    """Reads the output file of one worker, or of an installation, from where `begin` was called."""

    def __init__(self, *, path: str, clock: Callable[[], float]) -> None:
        self.path = path
        self._clock = clock
        self._offset = 0
        self._rest = b""
        self.findings = Findings()
        self.error_at: float | None = None  # seconds by `clock`: when the latest error was found

    def begin(self, *, fresh: bool = True) -> None:
        """Begin at the end of the file; one block before, for a process that was found running (`fresh` False)."""
        size = self._size()
        self._offset = size if fresh else max(0, size - BLOCK_BYTES)
        self._rest = b""
        self.findings = Findings()
        self.error_at = None

    def _size(self) -> int:
        try:
            return os.stat(self.path).st_size
        except OSError:
            return 0

    async def read_new(self) -> None:
        """Read the lines that are new."""
        for _ in range(_STEPS_PER_READ):
            if not self._read_step():
                break
            await asyncio.sleep(0)

    def _read_step(self) -> bool:
        """Read the next lines that are new; False when there are none."""
        try:
            block, after = read_block(self.path, self._offset)
        except OSError:
            return False  # removed, or not readable: there is nothing to read
        step = block[:_STEP_BYTES]
        self._offset = after - len(block) + len(step)
        *lines, self._rest = (self._rest + step).split(b"\n")
        self._rest = self._rest[-BLOCK_BYTES:]
        before = self.findings.errors
        for line in lines:
            if line:
                self.findings.read_line(line.decode("utf-8", "replace"))
        if self.findings.errors > before:
            self.error_at = self._clock()
        return bool(step)

    def last_words(self) -> str | None:
        """Return the latest line that matters, of a process that has ended."""
        self._offset = max(self._offset, self._size() - _STEPS_AT_END * _STEP_BYTES)
        for _ in range(_STEPS_AT_END):  # a process that this one left behind may write on for ever
            self._read_step()
        if self._rest:
            self.findings.read_line(self._rest.decode("utf-8", "replace"))
            self._rest = b""
        return self.findings.last
