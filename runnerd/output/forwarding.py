"""Forwards the output of runs to systemd's journal, line by line, with the run's fields.

Invariants: the files are the output, and the journal a copy: nothing here slows a run down or ends one, and nobody
waits for this loop, not even the watchdog, for it may hang with the disk that the output is on. A journald that takes
nothing is waited for. How far each file was forwarded is on disk after every round, so a daemon that is restarted goes
on where the last one was; one that was killed repeats at most what it sent in its last round.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from runnerd.config.in_force import ConfigInForce
from runnerd.core.codec import Decoder, to_json
from runnerd.core.machine import Phase, RunRecord
from runnerd.core.place import Json
from runnerd.core.record_feed import RecordFeed
from runnerd.log.journald import Journald
from runnerd.log.log import Log
from runnerd.output.folder_watch import FolderWatch
from runnerd.output.tailing import Allowance, Outcome, Tail, forward, left_out_entry, tail_of
from runnerd.system.directories import positions_path, runs_dir
from runnerd.system.paths import Paths

# journald takes 10,000 entries in 30 seconds from a service unless it is told otherwise; some of them are our own.
WINDOW_S = 10.0
HOST_LINES = 2000
RUN_LINES = 1000

_GATHER_S = 0.25  # from the first line that was written until they are looked at together
_LOOK_S = 1.0  # without inotify, while journald takes nothing, and while somebody is to be told of lines left out
_BLOCKS = 16  # of one file in one round, so that the others have their turn

_PATIENCE_S = 0.002
_PATIENCE = 250  # times in one round

Key = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A file to look at. `over`: no process of the run writes to it; `gone`: the run is done with, here."""

    tail: Tail
    over: bool
    gone: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What became of it; `tail` is None when there is nothing more to do about it."""

    key: Key
    tail: Tail | None
    outcome: Outcome
    trouble: str | None = None


class Forwarder:
    """`records` are the runs under way. Without a journald it does nothing."""

    def __init__(
        self,
        *,
        journald: Journald | None,
        paths: Paths,
        records: Callable[[], Sequence[RunRecord]],
        config: ConfigInForce,
        feed: RecordFeed,
        log: Log,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journald = journald
        self._folder = runs_dir(paths)
        self._positions = Positions(positions_path(paths))
        self._records = records
        self._settings = config.settings
        self._log = log
        self._clock = clock
        self._tails: dict[Key, Tail] = {}
        self._host = self._allowance(HOST_LINES)
        self._allowances: dict[str, Allowance] = {}
        self._patience = 0
        self._watch: FolderWatch | None = None
        self._wake = asyncio.Event()
        self._troubles: dict[Key | None, str] = {}  # what was said already; None is the positions' file
        if journald is not None:
            feed.subscribe(self._note)

    def _allowance(self, lines: int) -> Allowance:
        return Allowance(lines=lines, window_s=WINDOW_S, clock=self._clock)

    def _note(self, record: RunRecord) -> None:
        """Take up a changed run at once: one may begin and end between two rounds."""
        self._take_up(record)
        self._wake.set()

    def _take_up(self, record: RunRecord) -> None:
        tail = tail_of(record)
        if tail is not None:
            self._tails.setdefault(tail.key, tail)

    # --- the loop -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Forward for ever; when it is cancelled, what is written by then is sent first."""
        if self._journald is None:
            return
        kept, trouble = await asyncio.to_thread(self._positions.load)
        self._tails.update(kept)
        self._say(None, trouble)
        try:
            self._watch = FolderWatch(self._folder)
        except OSError as error:
            self._log.info("output is looked at every second: there is no inotify", why=error.strerror)
        try:
            while True:
                await self._wait(await self._round())
        except asyncio.CancelledError:
            await self._round()
            raise
        finally:
            if self._watch is not None:
                self._watch.close()

    async def _wait(self, limit_s: float | None) -> None:
        """Until something was written, a run has changed, or `limit_s` is over; then for others that do the same."""
        if self._watch is not None and self._tails:
            self._watch.arm(self._wake.set)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._wake.wait()
        await asyncio.sleep(_GATHER_S)
        self._wake.clear()
        if self._watch is not None:
            self._watch.drain()  # before the files are read: what is written after that wakes us again

    async def _round(self) -> float | None:
        """Look at every file once; how long to wait at most until the next round."""
        jobs = self._jobs()
        work = asyncio.ensure_future(asyncio.to_thread(self._work, jobs))
        done: list[Done] = []
        try:
            await asyncio.shield(work)
        finally:
            # Also when we are cancelled meanwhile: it is bounded, and what it sent must not be sent again.
            done, trouble = await work
            for one in done:
                self._merge(one)
            self._say(None, trouble)
        return self._pause_s(done)

    def _jobs(self) -> list[Job]:
        if self._settings().output.journal == "never":
            self._tails.clear()
            return []
        standing = {record.id: record for record in self._records()}
        for record in standing.values():
            self._take_up(record)
        return [_job(tail, standing.get(tail.run)) for tail in self._tails.values()]

    def _merge(self, done: Done) -> None:
        self._say(done.key, done.trouble)
        if done.tail is not None:
            self._tails[done.key] = done.tail
            return
        self._tails.pop(done.key, None)
        self._troubles.pop(done.key, None)
        self._allowances.pop(done.key[0], None)

    def _pause_s(self, done: Sequence[Done]) -> float | None:
        left = [one for one in done if one.tail is not None]
        if any(one.outcome is Outcome.MOVED for one in left):
            return 0.0
        waiting = any(one.outcome is Outcome.STUCK or (one.tail and one.tail.left_out) for one in left)
        return _LOOK_S if waiting or (left and self._watch is None) else None

    def _say(self, key: Key | None, trouble: str | None) -> None:
        """Once, not at every round."""
        if trouble is not None and trouble != self._troubles.get(key):
            run = key[0] if key is not None else None
            self._log.warning("trouble with forwarding output to the journal", run=run, why=trouble)
        if trouble is not None:
            self._troubles[key] = trouble
        else:
            self._troubles.pop(key, None)

    # --- in a thread: files and journald may be slow --------------------------------------------------------------

    def _send(self, entry: bytes) -> bool:
        """With a little patience: we are faster than journald, and nothing tells us when it has room again."""
        assert self._journald is not None
        while not self._journald.send(entry):
            if self._patience <= 0:
                return False
            self._patience -= 1
            time.sleep(_PATIENCE_S)
        return True

    def _work(self, jobs: Sequence[Job]) -> tuple[list[Done], str | None]:
        self._patience = _PATIENCE
        done = [self._forward(job) for job in jobs]
        return done, self._positions.save([one.tail for one in done if one.tail is not None])

    def _forward(self, job: Job) -> Done:
        tail, outcome = job.tail, Outcome.END
        # Its own first: a run that is over its bound takes nothing from the others.
        allowances = (self._allowances.setdefault(tail.run, self._allowance(RUN_LINES)), self._host)
        try:
            for _ in range(_BLOCKS):
                tail, outcome = forward(tail, over=job.over, allowances=allowances, send=self._send)
                if outcome is not Outcome.MOVED:
                    break
        except OSError as error:
            trouble = f"cannot read {tail.path}: {error.strerror}"
            return Done(key=tail.key, tail=None if job.gone else tail, outcome=Outcome.END, trouble=trouble)
        if job.gone and outcome is Outcome.END:
            if tail.left_out == 0 or self._send(left_out_entry(tail, allowances)):
                return Done(key=tail.key, tail=None, outcome=outcome)
            outcome = Outcome.STUCK
        return Done(key=tail.key, tail=tail, outcome=outcome)


def _job(tail: Tail, record: RunRecord | None) -> Job:
    """Where its run stands; looked at before the file is read, so that what it wrote until its end is then read."""
    gone = record is None or record.attempt != tail.attempt or record.phase is Phase.DONE
    # While `reporting`, hooks may still write; until they do, half a line is all there will be of it.
    over = gone or (record is not None and record.phase is Phase.REPORTING)
    return Job(tail=tail, over=over, gone=gone)


class Positions:
    """The file that remembers how far output was forwarded. Its loss means repeated lines, so it is not synced."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._saved: Json = []

    def load(self) -> tuple[dict[Key, Tail], str | None]:
        """What the last daemon left, and why that could not be read."""
        decoder = Decoder()
        try:
            with open(self._path, encoding="utf-8") as file:
                tails = [decoder.decode(Tail, entry) for entry in json.load(file)]
        except FileNotFoundError:
            return {}, None
        except (OSError, ValueError, TypeError, KeyError) as error:
            return {}, f"cannot read {self._path}: {error}; output of runs under way is forwarded from its beginning"
        self._saved = to_json(tails)
        return {tail.key: tail for tail in tails}, None

    def save(self, tails: Sequence[Tail]) -> str | None:
        """Remember these; why that cannot be."""
        document = to_json(tails)
        if document == self._saved:
            return None
        new = f"{self._path}.new"
        try:
            with open(new, "w", encoding="utf-8") as file:
                json.dump(document, file)
            os.replace(new, self._path)
        except OSError as error:
            return f"cannot write {new}: {error.strerror}; lines are repeated when runnerd is restarted now"
        self._saved = document
        return None
