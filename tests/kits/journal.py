"""Journals of many runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from runnerd.core.machine import Phase, RunRecord
from runnerd.journal.journal import Journal
from tests.kits.nouns import NOON, Json, LogLines, a_record, log_to

PAGE = 4096
MANY = 60


@contextlib.contextmanager
def opened(path: Path, lines: LogLines | None = None) -> Iterator[Journal]:
    journal = Journal(path=str(path), now=lambda: NOON, log=log_to(lines if lines is not None else LogLines()))
    try:
        yield journal
    finally:
        journal.close()


def left_behind(folder: Path, record: RunRecord, **changes: Json) -> None:
    """As if a daemon had died with this much of a run written down."""
    journal = Journal(path=str(folder / "journal.db"), now=lambda: record.created_at, log=log_to(LogLines()))
    journal.save(replace(record, **changes), "as it was left")
    journal.close()


def running(name: str) -> RunRecord:
    return a_record(name, phase=Phase.RUNNING, words="w" * 900)


def ids(records: list[RunRecord]) -> list[str]:
    return [record.id for record in records]


def steps(journal: Journal, run_id: str) -> list[tuple[str, str]]:
    """The phase and the event of each step of a run's history, the oldest first; read as an administrator does."""
    rows = journal._db.execute("SELECT phase, event FROM transitions WHERE run_id = ? ORDER BY rowid", (run_id,))
    return [(str(phase), str(event)) for phase, event in rows]


def events(journal: Journal, run_id: str) -> list[str]:
    return [event for _, event in steps(journal, run_id)]


LIVE = {f"r-{number:02}" for number in range(MANY) if number % 3}
