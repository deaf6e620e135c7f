"""Forwards the output of all runs to systemd's journal, line by line, with each run's fields.

Invariants: the output files are the original and the journal holds a copy, so forwarding never slows or ends a run.
This loop may hang with the disk that the output is on, so no other loop waits for this one, and the watchdog does not
watch it. While journald takes nothing, forwarding waits. The offset of each file is on disk after every round, so a
restarted daemon goes on there; a killed daemon repeats at most the lines of its last round.
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
from runnerd.output.tailing import BlockOutcome, RateLimit, Tail, forward, left_out_entry, make_tail
from runnerd.system.directories import positions_path, runs_dir
from runnerd.system.paths import Paths

# journald's default rate limit is 10,000 entries in 30 s per service; some of them are the daemon's own log.
RATE_WINDOW_S = 10.0
HOST_LINES_PER_WINDOW = 2000
RUN_LINES_PER_WINDOW = 1000

_GATHER_S = 0.25  # between the first write and the round that forwards it with the writes after it
_POLL_S = 1.0  # between rounds without inotify, while journald takes nothing, and while left-out lines are unreported
_BLOCKS_PER_FILE_PER_ROUND = 16  # so that the other files have their turn

_SEND_RETRY_S = 0.002
_SEND_RETRIES_PER_ROUND = 250

Key = tuple[str, int]  # run id, attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class FileToForward:
    """One output file of a round.

    `over`: no process of the run writes to the file any more; `gone`: the attempt has ended for this host, so the file
    is not needed in the next round.
    """

    tail: Tail
    over: bool
    gone: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Forwarded:
    """What a round did with one output file; `tail` is None when nothing is left to forward."""

    key: Key
    tail: Tail | None
    outcome: BlockOutcome
    trouble: str | None = None


class Forwarder:
    """Forwards in rounds; `records` returns the runs under way. Does nothing without a `journald`."""

    def __init__(
        self,
        *,
        journald: Journald | None,
        paths: Paths,
        records: Callable[[], Sequence[RunRecord]],
        config: ConfigInForce,
        feed: RecordFeed,
        log: Log,
        clock: Callable[[], float],
    ) -> None:
        self._journald = journald
        self._folder = runs_dir(paths)
        self._positions = Positions(positions_path(paths))
        self._records = records
        self._settings = config.settings
        self._log = log
        self._clock = clock
        self._tails: dict[Key, Tail] = {}
        self._host_limit = self._new_limit(HOST_LINES_PER_WINDOW)
        self._run_limits: dict[str, RateLimit] = {}
        self._send_retries_left = 0
        self._watch: FolderWatch | None = None
        self._wake = asyncio.Event()
        self._troubles: dict[Key | None, str] = {}  # what was logged already; None stands for the positions file
        if journald is not None:
            feed.subscribe(self._note_record)

    def _new_limit(self, lines: int) -> RateLimit:
        return RateLimit(lines=lines, window_s=RATE_WINDOW_S, clock=self._clock)

    def _note_record(self, record: RunRecord) -> None:
        """Add the output of a changed run at once: a short run may begin and end between two rounds."""
        self._add_tail(record)
        self._wake.set()

    def _add_tail(self, record: RunRecord) -> None:
        tail = make_tail(record)
        if tail is not None:
            self._tails.setdefault(tail.key, tail)

    # --- the loop -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Forward for ever; when cancelled, forward what was written until then first."""
        if self._journald is None:
            return
        saved, trouble = await asyncio.to_thread(self._positions.load)
        self._tails.update(saved)
        self._log_trouble(None, trouble)
        try:
            self._watch = FolderWatch(self._folder)
        except OSError as error:
            self._log.info("output files are polled every second: inotify is not available", why=error.strerror)
        try:
            while True:
                await self._wait(await self._forward_all())
        except asyncio.CancelledError:
            await self._forward_all()
            raise
        finally:
            if self._watch is not None:
                self._watch.close()

    async def _wait(self, limit_s: float | None) -> None:
        """Wait for a write, a changed run or the end of `limit_s`; then _GATHER_S for more of them."""
        if self._watch is not None and self._tails:
            self._watch.arm(self._wake.set)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._wake.wait()
        await asyncio.sleep(_GATHER_S)
        self._wake.clear()
        if self._watch is not None:
            self._watch.drain()  # before the files are read, so that every later write wakes this loop again

    async def _forward_all(self) -> float | None:
        """Do one round over all files; return the time in seconds after which the next is due without a write."""
        files = self._files()
        work = asyncio.ensure_future(asyncio.to_thread(self._forward_files, files))
        results: list[Forwarded] = []
        try:
            await asyncio.shield(work)
        finally:
            # Even when cancelled: the thread takes bounded time, and its offsets are needed, or lines are sent twice.
            results, trouble = await work
            for result in results:
                self._merge(result)
            self._log_trouble(None, trouble)
        return self._pause_s(results)

    def _files(self) -> list[FileToForward]:
        if self._settings().output.journal == "never":
            self._tails.clear()
            return []
        records = {record.id: record for record in self._records()}
        for record in records.values():
            self._add_tail(record)
        return [_file_to_forward(tail, records.get(tail.run)) for tail in self._tails.values()]

    def _merge(self, result: Forwarded) -> None:
        self._log_trouble(result.key, result.trouble)
        if result.tail is not None:
            self._tails[result.key] = result.tail
            return
        self._tails.pop(result.key, None)
        self._troubles.pop(result.key, None)
        self._run_limits.pop(result.key[0], None)

    def _pause_s(self, results: Sequence[Forwarded]) -> float | None:
        left = [one for one in results if one.tail is not None]
        if any(one.outcome is BlockOutcome.MOVED for one in left):
            return 0.0
        waiting = any(one.outcome is BlockOutcome.STUCK or (one.tail and one.tail.left_out) for one in left)
        return _POLL_S if waiting or (left and self._watch is None) else None

    def _log_trouble(self, key: Key | None, trouble: str | None) -> None:
        """Log a trouble when it is new, not at every round."""
        if trouble is not None and trouble != self._troubles.get(key):
            run = key[0] if key is not None else None
            self._log.warning("cannot forward output as usual", run=run, why=trouble)
        if trouble is not None:
            self._troubles[key] = trouble
        else:
            self._troubles.pop(key, None)

    # --- in a thread: files and journald may be slow --------------------------------------------------------------

    def _send(self, entry: bytes) -> bool:
        """Send an entry, with retries: forwarding is faster than journald, and no event says when journald has room."""
        assert self._journald is not None
        while not self._journald.send(entry):
            if self._send_retries_left <= 0:
                return False
            self._send_retries_left -= 1
            time.sleep(_SEND_RETRY_S)
        return True

    def _forward_files(self, files: Sequence[FileToForward]) -> tuple[list[Forwarded], str | None]:
        """Forward each file and save the positions; return the results, and why the positions cannot be saved."""
        self._send_retries_left = _SEND_RETRIES_PER_ROUND
        results = [self._forward(file) for file in files]
        return results, self._positions.save([one.tail for one in results if one.tail is not None])

    def _forward(self, file: FileToForward) -> Forwarded:
        tail, outcome = file.tail, BlockOutcome.END
        # The run's limit before the host's: a run over its own limit must use up nothing of the host's.
        limits = (self._run_limits.setdefault(tail.run, self._new_limit(RUN_LINES_PER_WINDOW)), self._host_limit)
        try:
            for _ in range(_BLOCKS_PER_FILE_PER_ROUND):
                tail, outcome = forward(tail, over=file.over, limits=limits, send=self._send)
                if outcome is not BlockOutcome.MOVED:
                    break
        except OSError as error:
            trouble = f"cannot read {tail.path}: {error.strerror}"
            return Forwarded(key=tail.key, tail=None if file.gone else tail, outcome=BlockOutcome.END, trouble=trouble)
        if file.gone and outcome is BlockOutcome.END:
            if tail.left_out == 0 or self._send(left_out_entry(tail, limits)):
                return Forwarded(key=tail.key, tail=None, outcome=outcome)
            outcome = BlockOutcome.STUCK
        return Forwarded(key=tail.key, tail=tail, outcome=outcome)


def _file_to_forward(tail: Tail, record: RunRecord | None) -> FileToForward:
    """Note whether the run still writes: before the file is read, so that its last lines are in what is read then."""
    gone = record is None or record.attempt != tail.attempt or record.phase is Phase.DONE
    # In phase `reporting` only hooks may still write, so the flow's last line without a newline will get no more text.
    over = gone or (record is not None and record.phase is Phase.REPORTING)
    return FileToForward(tail=tail, over=over, gone=gone)


class Positions:
    """The file of each output's offset. Losing the file only repeats lines, so its writes are not synced to disk."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._saved: Json = []

    def load(self) -> tuple[dict[Key, Tail], str | None]:
        """Read the tails that the last daemon saved; with a problem when the file cannot be read."""
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
        """Write the tails if they have changed; return a problem when the file cannot be written."""
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
