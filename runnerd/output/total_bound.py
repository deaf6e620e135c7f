"""Holds the output of all runs together to output.max_total: the runs that ended first lose theirs first.

Invariants: the output of a run under way is never removed; the record of a run says so before its output is removed.
The files are listed and removed in a thread, because the disk that they are on may be slow.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from runnerd.config.in_force import ConfigInForce
from runnerd.core.errors import JournalError
from runnerd.core.machine import RunRecord
from runnerd.journal.journal import Journal
from runnerd.log.log import Log

CHECK_EVERY_S = 30.0
REMOVED = "output.max_total"  # what a run's record says of it
_RUNS_PER_SLICE = 20


@dataclass(slots=True)
class StoredOutput:
    """The output files of all attempts of one run; `written_at` is the last write to any of them."""

    run_id: str
    paths: list[str] = field(default_factory=list)
    used_bytes: int = 0
    written_at: float = 0.0


class TotalBound:
    """Removes the oldest outputs from `folder`; `records` returns the runs under way."""

    def __init__(
        self,
        *,
        folder: str,
        config: ConfigInForce,
        records: Callable[[], Sequence[RunRecord]],
        journal: Journal,
        log: Log,
    ) -> None:
        self._folder = folder
        self._settings = config.settings
        self._records = records
        self._journal = journal
        self._log = log
        self._stuck: dict[str, str] = {}  # run id -> why its output cannot be removed
        self._trouble: str | None = None  # why the folder cannot be listed, logged already

    async def run(self) -> None:
        """Enforce the bound at once and then every CHECK_EVERY_S, for ever."""
        while True:
            await self.enforce()
            await asyncio.sleep(CHECK_EVERY_S)

    async def enforce(self) -> None:
        """Remove the oldest outputs beyond the bound."""
        max_bytes = self._settings().output.max_total_bytes
        stored = await asyncio.to_thread(self._list)
        # Read after the listing: a run that began meanwhile is under way by now, or its files are not in the list.
        spared = {record.id for record in self._records()}
        removed = list(oldest_beyond(stored, max_bytes=max_bytes, spared=spared))
        for first in range(0, len(removed), _RUNS_PER_SLICE):
            self._note([one.run_id for one in removed[first : first + _RUNS_PER_SLICE]])
            await asyncio.sleep(0)
        failed = await asyncio.to_thread(_remove_all, removed) if removed else {}
        if failed.keys() - self._stuck.keys():
            self._log.warning("cannot remove the output of old runs", runs=len(failed), why=next(iter(failed.values())))
        self._stuck = failed  # tried again in the next round: a file system may have been read-only for a moment
        if removed:
            freed = sum(one.used_bytes for one in removed if one.run_id not in failed)
            self._log.info("removed the oldest output: output.max_total", runs=len(removed) - len(failed), bytes=freed)

    def _list(self) -> list[StoredOutput]:
        try:
            trouble, stored = None, list_outputs(self._folder)
        except OSError as error:
            trouble, stored = f"{self._folder}: {error.strerror}", []
        if trouble is not None and trouble != self._trouble:
            self._log.warning("cannot list the output of runs", why=trouble)
        self._trouble = trouble
        return stored

    def _note(self, run_ids: Iterable[str]) -> None:
        for run_id in run_ids:
            # On a full disk it cannot be noted, and removing is all the more needed.
            with contextlib.suppress(JournalError):
                record = self._journal.run(run_id)
                if record is not None and not record.live and record.output_removed is None:
                    self._journal.save(replace(record, output_removed=REMOVED), "output removed")


def list_outputs(folder: str) -> list[StoredOutput]:
    """List the outputs in the folder, by the run that the names of their files begin with. Raises OSError."""
    found: dict[str, StoredOutput] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            run_id, _, rest = entry.name.partition(".")
            if not rest.endswith(".log"):
                continue
            try:
                facts = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            stored = found.setdefault(run_id, StoredOutput(run_id))
            stored.paths.append(entry.path)
            stored.used_bytes += facts.st_blocks * 512
            stored.written_at = max(stored.written_at, facts.st_mtime)
    return list(found.values())


def oldest_beyond(
    stored: Collection[StoredOutput], *, max_bytes: int, spared: Collection[str]
) -> Iterator[StoredOutput]:
    """Yield the oldest outputs, except those of `spared` runs, until the others together are within `max_bytes`."""
    total = sum(one.used_bytes for one in stored)
    for one in sorted(stored, key=lambda one: one.written_at):
        if total <= max_bytes:
            return
        if one.run_id not in spared:
            total -= one.used_bytes
            yield one


def _remove_all(outputs: Iterable[StoredOutput]) -> dict[str, str]:
    """Remove the files; return why, by run, where one cannot be removed."""
    failed = {}
    for output in outputs:
        for path in output.paths:
            try:
                os.unlink(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                failed[output.run_id] = f"{path}: {error.strerror}"
    return failed
