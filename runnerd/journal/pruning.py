"""Retries a journal that cannot be written, and prunes the history of runs with their output files."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from datetime import datetime, timedelta

from runnerd.config.in_force import ConfigInForce
from runnerd.core.errors import JournalError
from runnerd.core.machine import RunRecord
from runnerd.core.settings import JournalSettings
from runnerd.core.wakes import Wakes
from runnerd.journal.journal import Journal
from runnerd.log.log import Log

_INSPECTIONS_KEPT = timedelta(days=90)
_TRY_WRITING_EVERY_S = 5.0
PRUNE_EVERY_S = 60.0
_RUNS_PER_SLICE = 100  # about 20 ms, in which the event loop runs nothing else
_PAGES_PER_SLICE = 64  # some milliseconds


async def recover_journal(*, journal: Journal, wakes: Wakes) -> None:
    """Retry a journal that cannot be written every few seconds, for ever; without this, only a claim would retry it."""
    while True:
        await asyncio.sleep(_TRY_WRITING_EVERY_S)
        if journal.problem is None:
            continue
        with contextlib.suppress(JournalError):
            journal.try_writing()
            wakes.offer.set()


async def prune_periodically(*, journal: Journal, config: ConfigInForce, now: Callable[[], datetime], log: Log) -> None:
    """Prune the history every minute, for ever."""
    failed: frozenset[str] = frozenset()
    while True:
        settings = config.settings().journal
        failed = await prune_history(journal=journal, settings=settings, now=now(), log=log, known=failed)
        await asyncio.sleep(PRUNE_EVERY_S)


async def prune_history(
    *, journal: Journal, settings: JournalSettings, now: datetime, log: Log, known: frozenset[str] = frozenset()
) -> frozenset[str]:
    """Delete finished runs beyond journal.keep and journal.max_runs, and their output files.

    A run whose output cannot be removed stays in the journal and is tried again the next time. Returns the ids of those
    runs; nothing is logged when all of them are `known` from the last time.
    """
    before = now - timedelta(seconds=settings.keep_s)
    failed: dict[str, str] = {}  # run id -> why its output cannot be removed
    try:
        while old := journal.prunable(before=before, max_runs=settings.max_runs, limit=_RUNS_PER_SLICE + len(failed)):
            # Output first: a row without output is harmless, but nothing would ever remove output without a row.
            failed |= {record.id: why for record in old if (why := _remove_output(record)) is not None}
            removed = [record.id for record in old if record.id not in failed]
            if not removed:
                break
            journal.forget(removed)
            await asyncio.sleep(0)  # let other tasks run: there may be ten thousand runs to delete
        journal.prune_memories(before=now - _INSPECTIONS_KEPT)
        more = journal.problem is None
        while more:
            more = journal.return_space(_PAGES_PER_SLICE)
            await asyncio.sleep(0)
    except JournalError as error:
        log.warning("cannot delete old runs from the journal", why=str(error))
    if failed.keys() - known:
        log.warning("cannot remove the output of old runs", runs=len(failed), why=next(iter(failed.values())))
    return frozenset(failed)


def _remove_output(record: RunRecord) -> str | None:
    """Remove the output files of every attempt; return why one cannot be removed, with its path."""
    if record.output is None:
        return None
    # Not by the last attempt's number: one that never started has no output, and the record names the one before.
    stem = record.output.removesuffix(".log").rpartition(".")[0]
    for attempt in range(1, record.attempt + 1):
        try:
            os.unlink(f"{stem}.{attempt}.log")
        except FileNotFoundError:
            continue
        except OSError as error:
            return f"{stem}.{attempt}.log: {error.strerror}"
    return None
