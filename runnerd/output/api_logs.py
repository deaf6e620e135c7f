"""Sends the output of commands to Prefect's log, where flows' processes do that themselves.

Invariants: the output file is the original, and its process never waits for the API; a line is in the log once, also
over a restart of the daemon and after a lost answer (output/api_progress.py); what the API refuses is left out, and
said in the log. At most _BATCHES_PER_ROUND batches of a run are sent every INTERVAL_S, as often as Prefect's client.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from runnerd.core.backoff import Backoff
from runnerd.core.commands import PROGRESS_SUFFIX, STDIN_SUFFIX
from runnerd.core.errors import ApiAway, ApiError, ApiRejected
from runnerd.core.machine import Phase, RunRecord
from runnerd.core.record_feed import RecordFeed
from runnerd.files.bounded_calls import BoundedCalls, Unanswered
from runnerd.output.api_batches import Batch, commit, take_batch
from runnerd.output.api_progress import Progress, load_progress, save_progress
from runnerd.prefect_api.logs import STEP, LogsApi
from runnerd.system.ambient import Ambient
from runnerd.system.containment import Containment

INTERVAL_S = 2.0
_BATCHES_PER_ROUND = 4
_LAST_ROUND_S = 5.0  # when the daemon stops; the next one sends the rest
_LOOP = "logs of commands"


@dataclass(slots=True)
class _Attempt:
    """One attempt whose output is sent. `unsure`: the API may have the pending batch.

    `rests_until`: nothing is sent before, by the monotonic clock, because the API or the disk has failed at this one.
    """

    run: str
    number: int
    output: str
    progress: Progress
    unsure: bool
    backoff: Backoff
    rests_until: float = 0.0
    trouble: str | None = None  # logged already

    @property
    def path(self) -> str:
        return f"{self.output}{PROGRESS_SUFFIX}"


class CommandLogs:
    """Sends in rounds; `records` returns the runs under way, `host_name` this host's."""

    def __init__(
        self,
        *,
        api: LogsApi,
        folder: str,
        records: Callable[[], Sequence[RunRecord]],
        calls: BoundedCalls,
        host_name: Callable[[], str],
        feed: RecordFeed,
        ambient: Ambient,
    ) -> None:
        self._api = api
        self._folder = folder
        self._records = records
        self._calls = calls
        self._host_name = host_name
        self._log = ambient.log
        self._now, self._clock = ambient.now, ambient.clock
        self._new_backoff = ambient.backoff
        self._contained = Containment(log=ambient.log, loop=_LOOP)
        self._new: set[str] = set()  # names of progress files that may have come
        self._attempts: dict[str, _Attempt] = {}
        self._wake = asyncio.Event()
        feed.subscribe(self._note_record)

    def _note_record(self, record: RunRecord) -> None:
        if record.command is not None and record.phase in (Phase.RUNNING, Phase.REPORTING, Phase.DONE):
            self._new.add(f"{record.id}.{record.attempt}.log{PROGRESS_SUFFIX}")
            self._wake.set()

    async def run(self) -> None:
        """Send for ever; when cancelled, send what was written until then first, for at most _LAST_ROUND_S."""
        self._new.update(await self._list_files())
        backoff = self._new_backoff()
        try:
            while True:
                self._wake.clear()
                try:
                    await self._send_all()
                except ApiError as error:
                    await asyncio.sleep(max(INTERVAL_S, backoff.next_s(error)))  # also where a run ends meanwhile
                    continue
                backoff.reset()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(INTERVAL_S if self._attempts or self._new else None):
                        await self._wake.wait()
        except asyncio.CancelledError:
            with contextlib.suppress(TimeoutError, ApiError):
                async with asyncio.timeout(_LAST_ROUND_S):
                    await self._send_all()
            raise

    async def _list_files(self) -> list[str]:
        """List the files of earlier daemons."""
        with self._contained.item(self._folder):
            found = await self._calls.call(self._folder, partial(os.listdir, self._folder))
            if not isinstance(found, Unanswered):
                return [name for name in found if name.endswith(f".log{PROGRESS_SUFFIX}")]
        return []

    async def _send_all(self) -> None:
        """Do one round. Raises ApiAway and ApiDenied."""
        new, self._new = self._new, set()
        for name in new - self._attempts.keys():
            with self._contained.item(name):
                await self._begin(name)
        live = {record.id: record for record in self._records()}
        for name, attempt in sorted(self._attempts.items(), key=lambda one: one[1].number):
            if attempt.rests_until > self._clock():
                continue
            record = live.get(attempt.run)
            over = record is None or record.attempt != attempt.number or _is_written(record)
            with self._contained.item(name):
                if await self._try_attempt(attempt, over=over):
                    del self._attempts[name]

    async def _try_attempt(self, attempt: _Attempt, *, over: bool) -> bool:
        """Send what there is of one attempt; one that fails by itself rests, and holds up no other."""
        try:
            is_done = await self._send_attempt(attempt, over=over)
        except (ApiError, OSError) as error:
            if isinstance(error, ApiError) and not error.may_be_own:
                raise
            delay_s = attempt.backoff.next_s(error if isinstance(error, ApiError) else None)
            attempt.rests_until = self._clock() + max(INTERVAL_S, delay_s)
            self._note_trouble(attempt, str(error))
            return False
        attempt.backoff.reset()
        attempt.trouble = None
        return is_done

    def _note_trouble(self, attempt: _Attempt, why: str) -> None:
        if attempt.trouble != why:
            self._log.warning("cannot send output of a command yet", run=attempt.run, why=why)
        attempt.trouble = why

    async def _begin(self, name: str) -> None:
        """Load a progress file, if it is there: not where all was sent before the run was done."""
        run, number, *_ = name.split(".")
        output = os.path.join(self._folder, name.removesuffix(PROGRESS_SUFFIX))
        with contextlib.suppress(FileNotFoundError):
            progress = await self._calls.call(self._folder, partial(load_progress, f"{output}{PROGRESS_SUFFIX}"))
            if isinstance(progress, Unanswered):
                self._new.add(name)
                return
            unsure = progress.pending is not None
            self._attempts[name] = _Attempt(run, int(number), output, progress, unsure, self._new_backoff())

    async def _send_attempt(self, attempt: _Attempt, *, over: bool) -> bool:
        """Send what there is of one attempt, up to the bound; return whether nothing is left for ever."""
        for _ in range(_BATCHES_PER_ROUND):
            await self._settle_unsure(attempt)
            batch = await self._take_in_thread(attempt, over=over)
            if isinstance(batch, Unanswered):
                return False
            if batch is None:
                if over:
                    await self._calls.call(self._folder, partial(_remove_files, attempt.output))
                return over
            attempt.progress = batch.progress
            await self._send(attempt, batch)
            if not (batch.more or over):
                break
        return False

    async def _settle_unsure(self, attempt: _Attempt) -> None:
        """Ask the API whether it has the batch of which the answer was lost."""
        pending = attempt.progress.pending
        if not attempt.unsure or pending is None:
            return
        if await self._api.has(attempt.run, pending.first):
            attempt.progress = commit(attempt.progress)
        attempt.unsure = False

    async def _take_in_thread(self, attempt: _Attempt, *, over: bool) -> Batch | Unanswered | None:
        """Take the next batch; even when cancelled, wait until its file is written: the last round writes it too."""
        take = partial(self._take, attempt, over=over, now=self._next_time(attempt))
        taking = asyncio.ensure_future(self._calls.call(self._folder, take))
        try:
            return await asyncio.shield(taking)
        finally:
            await asyncio.wait([taking])

    def _next_time(self, attempt: _Attempt) -> datetime:
        """Return the time for the next line: now, but no line of another attempt of the run has it or a later one."""
        ends = [other.progress.end for other in self._attempts.values() if other.run == attempt.run]
        return max([self._now(), *(end + STEP for end in ends if end is not None)])

    def _take(self, attempt: _Attempt, *, over: bool, now: datetime) -> Batch | None:
        advice = f"`runnerctl logs {attempt.run}` on {self._host_name()} has what is stored"
        batch = take_batch(attempt.output, attempt.progress, over=over, now=now, advice=advice)
        if batch is not None:
            save_progress(attempt.path, batch.progress)
        return batch

    async def _send(self, attempt: _Attempt, batch: Batch) -> None:
        attempt.unsure = True  # also where this task is cancelled meanwhile
        try:
            await self._api.send(attempt.run, batch.lines, first=batch.first)
        except ApiRejected as error:
            self._log.warning("the API rejects output of a command", run=attempt.run, why=str(error))
            lost = batch.after.offset - batch.progress.offset
            attempt.progress = replace(batch.after, left_out=batch.progress.left_out + lost)
        except ApiAway as error:
            attempt.unsure = error.unsure or error.answered
            raise
        else:
            attempt.progress = batch.after
        attempt.unsure = False


def _is_written(record: RunRecord) -> bool:
    """Whether nothing is written to the output any more: what is run after the run writes there, too."""
    return record.phase is Phase.REPORTING and not record.after


def _remove_files(output: str) -> None:
    """Remove what was beside the output for this attempt; its progress file last, by which the rest is found."""
    stdin, progress = f"{output}{STDIN_SUFFIX}", f"{output}{PROGRESS_SUFFIX}"
    for path in (stdin, f"{stdin}.new", f"{progress}.new", progress):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
