"""Keeping the journal writable and its history within bounds."""

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

_MEMORIES_KEPT = timedelta(days=90)
_TRIAL_S = 5.0
_PRUNE_S = 3600.0
_PRUNE_SLICE = 100  # some 20 ms without a turn for anybody else


async def keep_journal(*, journal: Journal, wakes: Wakes) -> None:
    """While nothing can be recorded, try again, so that it heals by itself also where nothing is on offer."""
    while True:
        await asyncio.sleep(_TRIAL_S)
        if journal.problem is None:
            continue
        with contextlib.suppress(JournalError):
            journal.try_again()
            wakes.offer.set()


async def keep_pruning(*, journal: Journal, config: ConfigInForce, now: Callable[[], datetime], log: Log) -> None:
    """Keep the history within its bounds."""
    while True:
        settings = config.settings().journal
        await prune(journal=journal, settings=settings, now=now(), log=log)
        await asyncio.sleep(_PRUNE_S)


async def prune(*, journal: Journal, settings: JournalSettings, now: datetime, log: Log) -> None:
    """Forget finished runs beyond journal.keep and journal.max_runs, and remove their output."""
    before = now - timedelta(seconds=settings.keep_s)
    stuck: dict[str, str] = {}
    try:
        while old := journal.prunable(before=before, max_runs=settings.max_runs, limit=_PRUNE_SLICE + len(stuck)):
            # Output first: a row without output is harmless, output without a row would stay for ever.
            stuck |= {record.id: why for record in old if (why := _remove_output(record)) is not None}
            gone = [record.id for record in old if record.id not in stuck]
            if not gone:
                break
            journal.forget(gone)
            await asyncio.sleep(0)  # a turn for everybody else: there may be ten thousand
    except JournalError as error:
        log.warning("cannot forget old runs", why=str(error))
    if stuck:
        log.warning("cannot remove the output of old runs", runs=len(stuck), why=next(iter(stuck.values())))
    journal.prune_memories(before=now - _MEMORIES_KEPT)


def _remove_output(record: RunRecord) -> str | None:
    """Remove the output of every attempt; why it cannot be done."""
    if record.output is None:
        return None
    stem = record.output.removesuffix(f".{record.attempt}.log")
    for attempt in range(1, record.attempt + 1):
        try:
            os.unlink(f"{stem}.{attempt}.log")
        except FileNotFoundError:
            continue
        except OSError as error:
            return f"{stem}.{attempt}.log: {error.strerror}"
    return None
