"""Keep the files that a run writes for us within their bounds: while the run writes, and exactly once it has ended.

These are its output file, and the result file of a helper. A file is checked when it was written to, CHECK_MIN_S to
CHECK_MAX_S later: the sooner, the sooner the bound would be reached at the present rate. What a run can write between
two checks is all that a file exceeds its bound by. A cut leaves half of the bound, so that a file is not cut at every
check; the cut at the end leaves the whole bound.
"""

from __future__ import annotations

import time
from functools import partial

from runnerd.spawner.io.log import log
from runnerd.spawner.io.loop import Loop
from runnerd.spawner.io.write_watch import WriteWatch
from runnerd.spawner.runs.output_bound import BLOCK_BYTES, OutputFile
from runnerd.spawner.runs.records import ProcessRecord

CHECK_MIN_S = 0.05
CHECK_MAX_S = 0.25
CHECK_AFTER_TROUBLE_S = 1.0  # out of descriptors, say; what is for ever costs little
RESULT_MAX_BYTES = 16 * 2**20  # of an answer of a helper; one that is cut is none
_FLOOD_BYTES_PER_S = 32 * 2**20


class _File:
    """A file with a bound, and what its last check saw: after its cut, if it made one."""

    __slots__ = (
        "at",
        "bound",
        "logged",
        "name",
        "path",
        "size",
        "timer",
        "trouble",
        "used_bytes",
        "watch",
        "writing_back",
    )

    def __init__(self, run: ProcessRecord, kind: str, path: str, bound: int) -> None:
        self.name = f"{run.name} {kind}"
        self.timer = (run.id, kind)
        self.path = path
        self.bound = max(bound, BLOCK_BYTES)
        self.at = time.monotonic()
        self.size = 0
        self.used_bytes = 0
        self.watch: int | None = None
        self.writing_back = False
        self.logged = False
        self.trouble: int | None = None  # the errno that was logged last

    def has_grown(self, owner: int | None) -> bool:
        """Return whether the file is larger than at the last check."""
        try:
            with OutputFile(self.path, owner=owner) as file:
                return file.size > self.size or file.used_bytes > self.used_bytes
        except OSError:
            return True  # the next check says why

    def check(self, owner: int | None) -> tuple[bool, float]:
        """Cut the file if needed; return whether it has grown, and after which time to check it again."""
        now = time.monotonic()
        with OutputFile(self.path, owner=owner) as file:
            grown = max(file.size - self.size, file.used_bytes - self.used_bytes, 0)
            rate = grown / max(now - self.at, 0.001)
            if file.used_bytes > self.bound:
                if not self.logged:
                    self.logged = True  # once: a flood is cut twenty times a second
                    log(f"{self.name} reached {self.bound} bytes: its oldest part is removed, now and from now on")
                file.cut(self.bound // 2, flood=rate > _FLOOD_BYTES_PER_S)
                self.writing_back = False
            elif file.used_bytes > self.bound * 3 // 4 and not self.writing_back:
                self.writing_back = True
                file.write_back(file.size - self.bound // 2)
            self.at, self.size, self.used_bytes = now, file.size, file.used_bytes
        until_full_s = (self.bound - self.used_bytes) / rate if rate else CHECK_MAX_S
        return grown > 0, min(CHECK_MAX_S, max(CHECK_MIN_S, until_full_s / 2))

    def cut_at_end(self, owner: int | None) -> None:
        """Cut the file, to which nobody writes any more, to exactly its bound."""
        with OutputFile(self.path, owner=owner) as file:
            if file.used_bytes > self.bound:
                file.cut(self.bound, flood=True)
            if file.used_bytes > self.bound:
                file.cut(2 * self.bound - file.used_bytes)  # a file with a hole may need a block to describe itself


class Outputs:
    """The files of the live runs that have a bound; `owner` is the uid they belong to, None for any."""

    def __init__(self, *, loop: Loop, watch: WriteWatch, owner: int | None) -> None:
        self._loop = loop
        self._watch = watch
        self._owner = owner
        self._files: dict[tuple[str, int], list[_File]] = {}

    def begin(self, run: ProcessRecord) -> None:
        """Bound the run's output and its result file from now on."""
        files = self._files[run.id] = _bounded_files(run)
        for file in files:
            self._check_after(file, CHECK_MIN_S)

    def end(self, run: ProcessRecord) -> None:
        """Cut the files of a run whose processes are gone, and check them no more; also of one that was not begun."""
        for file in self._files.pop(run.id, None) or _bounded_files(run):
            self._loop.cancel_timer(file.timer)
            if file.watch is not None:
                self._watch.disarm(file.watch)
            try:
                file.cut_at_end(self._owner)
            except FileNotFoundError:
                continue  # the run's set-up failed before it was made
            except OSError as error:
                self._log_trouble(file, error)

    def _check_after(self, file: _File, pause_s: float) -> None:
        self._loop.set_timer(file.timer, time.monotonic() + pause_s, partial(self._check, file))

    def _on_write(self, file: _File) -> None:
        file.watch = None
        file.at = time.monotonic()
        self._check_after(file, CHECK_MIN_S)

    def _check(self, file: _File) -> None:
        """Check a file; again soon if it has grown, else after the next write."""
        try:
            grown, pause_s = file.check(self._owner)
        except OSError as error:
            if not (isinstance(error, FileNotFoundError) and file.size == 0):  # else its process will make it
                self._log_trouble(file, error)
            self._check_after(file, CHECK_AFTER_TROUBLE_S)
            return
        if not grown and file.watch is None:
            # Armed before the next look at the file, or a write in between would be seen by neither.
            file.watch = self._watch.arm(file.path, partial(self._on_write, file))
            if file.watch is not None and not file.has_grown(self._owner):
                return
        self._check_after(file, pause_s)

    def _log_trouble(self, file: _File, error: OSError) -> None:
        if error.errno == file.trouble:
            return
        file.trouble = error.errno
        log(f"{file.name} file {file.path} cannot be trimmed: {error.strerror}")


def _bounded_files(run: ProcessRecord) -> list[_File]:
    files = [] if run.output_max_bytes is None else [_File(run, "output", run.output, run.output_max_bytes)]
    return files if run.result is None else [*files, _File(run, "result", run.result, RESULT_MAX_BYTES)]
