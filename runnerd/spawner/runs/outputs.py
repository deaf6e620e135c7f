"""Keep the output file of each run within its bound: while the run writes, and exactly once the run has ended.

A file is checked when it was written to, CHECK_MIN_S to CHECK_MAX_S later: the sooner, the sooner the bound would be
reached at the present rate. What a run can write between two checks is all that a file exceeds its bound by. A cut
leaves half of the bound, so that a file is not cut at every check; the cut at the end leaves the whole bound.
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
_FLOOD_BYTES_PER_S = 32 * 2**20


class _Growth:
    """What the last check of a file saw; `size` and `used_bytes` are those after its cut, if it made one."""

    __slots__ = ("at", "logged", "size", "used_bytes", "watch", "writing_back")

    def __init__(self) -> None:
        self.at = time.monotonic()
        self.size = 0
        self.used_bytes = 0
        self.watch: int | None = None
        self.writing_back = False
        self.logged = False


class Outputs:
    """The output files of the live runs that have a bound; `owner` is the uid they belong to, None for any."""

    def __init__(self, *, loop: Loop, watch: WriteWatch, owner: int | None) -> None:
        self._loop = loop
        self._watch = watch
        self._owner = owner
        self._growths: dict[tuple[str, int], _Growth] = {}

    def begin(self, run: ProcessRecord) -> None:
        """Bound the run's output from now on."""
        if run.output_max_bytes is not None:
            self._growths[run.id] = _Growth()
            self._check_after(run, CHECK_MIN_S)

    def end(self, run: ProcessRecord) -> None:
        """Cut the output of a run whose processes are gone, and check it no more."""
        growth = self._growths.pop(run.id, None)
        if growth is None:
            return
        self._loop.cancel_timer((run.id, "output"))
        if growth.watch is not None:
            self._watch.disarm(growth.watch)
        bound = _bound(run)
        try:
            with OutputFile(run.output, owner=self._owner) as file:
                if file.used_bytes > bound:
                    file.cut(bound, flood=True)
                if file.used_bytes > bound:
                    file.cut(2 * bound - file.used_bytes)  # a file with a hole may need a block to describe itself
        except OSError as error:
            self._log_trouble(run, error)

    def _check_after(self, run: ProcessRecord, pause_s: float) -> None:
        self._loop.set_timer((run.id, "output"), time.monotonic() + pause_s, partial(self._check, run))

    def _on_write(self, run: ProcessRecord) -> None:
        growth = self._growths.get(run.id)
        if growth is not None:
            growth.watch = None
            growth.at = time.monotonic()
            self._check_after(run, CHECK_MIN_S)

    def _check(self, run: ProcessRecord) -> None:
        """Cut the file if needed; check again soon if it grew, else at the next write."""
        growth = self._growths[run.id]
        try:
            grown, pause_s = self._measure(run, growth)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and growth.size == 0:
                self._check_after(run, CHECK_MAX_S)  # its process has not come to make it
            else:
                self._log_trouble(run, error)  # the file is gone or not ours: the next check would fail as well
            return
        if not grown and growth.watch is None:
            # Armed before the next look at the file, or a write in between would be seen by neither.
            growth.watch = self._watch.arm(run.output, partial(self._on_write, run))
            if growth.watch is not None and not self._has_grown(run, growth):
                return
        self._check_after(run, pause_s)

    def _measure(self, run: ProcessRecord, growth: _Growth) -> tuple[bool, float]:
        """Return whether the file has grown since the last check, and when to check it again."""
        bound, now = _bound(run), time.monotonic()
        with OutputFile(run.output, owner=self._owner) as file:
            grown = max(file.size - growth.size, file.used_bytes - growth.used_bytes, 0)
            rate = grown / max(now - growth.at, 0.001)
            if file.used_bytes > bound:
                if not growth.logged:
                    growth.logged = True  # once: a flood is cut twenty times a second
                    log(f"{run.name} output reached {bound} bytes: its oldest part is removed, now and from now on")
                file.cut(bound // 2, flood=rate > _FLOOD_BYTES_PER_S)
                growth.writing_back = False
            elif file.used_bytes > bound * 3 // 4 and not growth.writing_back:
                growth.writing_back = True
                file.write_back(file.size - bound // 2)
            growth.at, growth.size, growth.used_bytes = now, file.size, file.used_bytes
        until_full_s = (bound - growth.used_bytes) / rate if rate else CHECK_MAX_S
        return grown > 0, min(CHECK_MAX_S, max(CHECK_MIN_S, until_full_s / 2))

    def _has_grown(self, run: ProcessRecord, growth: _Growth) -> bool:
        try:
            with OutputFile(run.output, owner=self._owner) as file:
                return file.size > growth.size or file.used_bytes > growth.used_bytes
        except OSError:
            return True  # the next check says why

    def _log_trouble(self, run: ProcessRecord, error: OSError) -> None:
        log(f"{run.name} cannot trim {run.output}: {error.strerror}")


def _bound(run: ProcessRecord) -> int:
    return max(run.output_max_bytes or 0, BLOCK_BYTES)
