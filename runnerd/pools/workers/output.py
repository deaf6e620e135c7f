"""What one of Prefect's workers prints, read for what went wrong.

Invariants: it is read from the output file, a bounded part at a time, and never held; a worker that runs on after an
error is as interesting as one that ended, because it may fail every run it is given.
"""

from __future__ import annotations

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
_GROUP = re.compile(r"^ +(?:\+-.*|[|+] ?)")  # what stands before each line of an exception group, and between its parts
_BLOCKS = 16  # at one look
_WORDS = 300


class Findings:
    """Takes lines in their order. `errors` counts those that were logged as such, `last` is the latest that matters."""

    def __init__(self) -> None:
        self.errors = 0
        self.error: str | None = None
        self.last: str | None = None
        self._tracing = False
        self._open: str | None = None  # an error that may still be explained by the traceback below it

    def take(self, line: str) -> None:
        line = _GROUP.sub("", line.rstrip())
        entry = _ENTRY.match(line)
        if entry is not None:
            self._take_entry(entry.group(1), entry.group(2))
        elif line.endswith(_TRACEBACK):
            self._tracing = True
        elif line and not line[0].isspace() and not _NOISE.match(line):
            self._take_line(line)

    def _take_entry(self, level: str, rest: str) -> None:
        self._tracing, self._open = False, None
        if level in ("ERROR", "CRITICAL"):
            self.errors += 1
            self._open = rest.partition(" - ")[2] or rest
            self._say(self._open)

    def _take_line(self, line: str) -> None:
        if self._tracing and _EXCEPTION.match(line):
            self._tracing = False
            self._say(f"{self._open.rstrip('.:')}: {line}" if self._open else line)
        elif line.startswith("ERROR: "):  # pip's
            self.last = line.removeprefix("ERROR: ")[:_WORDS]
        elif self._open is None and not self._tracing:
            self.last = line[:_WORDS]

    def _say(self, words: str) -> None:
        self.last = words[:_WORDS]
        if self._open is not None:
            self.error = self.last


class WorkerOutput:
    """The output file of one worker, or of an installation; what came before `begin` is not looked at."""

    def __init__(self, *, path: str, clock: Callable[[], float]) -> None:
        self.path = path
        self._clock = clock
        self._offset = 0
        self._rest = b""
        self.findings = Findings()
        self.error_at: float | None = None  # when the latest error was seen

    def begin(self, *, fresh: bool = True) -> None:
        """One starts now; or was found running, and the end of what it has said so far counts as well."""
        try:
            size = os.stat(self.path).st_size
        except OSError:
            size = 0
        self._offset = size if fresh else max(0, size - BLOCK_BYTES)
        self._rest = b""
        self.findings = Findings()
        self.error_at = None

    def look(self) -> None:
        """Read what is new."""
        before = self.findings.errors
        for _ in range(_BLOCKS):
            try:
                block, self._offset = read_block(self.path, self._offset)
            except OSError:
                return  # its file was taken away or locked up: then there is nothing to tell
            if not block:
                break
            *lines, self._rest = (self._rest + block).split(b"\n")
            self._rest = self._rest[-BLOCK_BYTES:]
            for line in lines:
                self.findings.take(line.decode("utf-8", "replace"))
        if self.findings.errors > before:
            self.error_at = self._clock()

    def last_words(self) -> str | None:
        """The latest line that matters, once nothing more comes."""
        self.look()
        if self._rest:
            self.findings.take(self._rest.decode("utf-8", "replace"))
            self._rest = b""
        return self.findings.last
