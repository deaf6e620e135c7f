"""Reads and writes the notices in the journal's file: those to be sent, and which were sent.

Invariants: the notices of a run's end are written in the transaction of that end; a notice that was sent, or is in the
file already, is not written again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

from runnerd.core.codec import to_json
from runnerd.core.notices import Notice

Writing = Callable[[], AbstractContextManager[sqlite3.Connection]]


class NoticeRows:
    """The table of notices. `writing` and `decoded` are the journal's; every method raises JournalError."""

    def __init__(self, *, writing: Writing, decoded: Callable[..., list[tuple[str, Any]]]) -> None:
        self._writing = writing
        self._decoded = decoded

    def put(self, db: sqlite3.Connection, notices: Iterable[Notice]) -> None:
        """Write new notices, in a transaction of the journal's."""
        rows = [(one.id, one.created_at.isoformat(), json.dumps(to_json(one))) for one in notices]
        db.executemany("INSERT OR IGNORE INTO notices (id, at, done, record) VALUES (?, ?, 0, ?)", rows)

    def add(self, notices: Iterable[Notice]) -> None:
        """Write new notices."""
        with self._writing() as db:
            self.put(db, notices)

    def has(self, ids: Iterable[str]) -> set[str]:
        """Return which of these notices are in the file, sent or not."""
        with self._writing() as db:
            return {one for one in ids if db.execute("SELECT 1 FROM notices WHERE id = ?", (one,)).fetchone()}

    def pending(self) -> list[Notice]:
        """Return the notices that were not sent, the oldest first."""
        return [notice for _, notice in self._decoded(Notice, "notices", "WHERE done = 0 ORDER BY at")]

    def save(self, notice: Notice) -> None:
        """Write a changed notice."""
        with self._writing() as db:
            db.execute("UPDATE notices SET record = ? WHERE id = ?", (json.dumps(to_json(notice)), notice.id))

    def finish(self, notice_id: str) -> None:
        """Note that a notice was sent, or is not to be sent any more."""
        with self._writing() as db:
            db.execute("UPDATE notices SET done = 1, record = '' WHERE id = ?", (notice_id,))

    def prune(self, *, before: datetime, most: int) -> None:
        """Delete what is known of finished notices that were made before, and of all but the newest `most`."""
        with self._writing() as db:
            db.execute("DELETE FROM notices WHERE done = 1 AND at < ?", (before.isoformat(),))
            db.execute(
                "DELETE FROM notices WHERE done = 1 AND rowid IN"
                " (SELECT rowid FROM notices WHERE done = 1 ORDER BY at DESC LIMIT -1 OFFSET ?)",
                (most,),
            )
