"""The journal: one SQLite file that remembers what this host has promised.

Invariants: every change is one transaction, on disk (WAL, synchronous FULL) when the call returns; a file that is
not a database is moved aside, never deleted; every failure to record is a JournalError, so that nothing is claimed
which could not be written down.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from runnerd.codec import Decoder, to_json
from runnerd.errors import JournalError
from runnerd.machine import Phase, RunRecord
from runnerd.model import Config, Deployment, Inspection

_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, phase TEXT NOT NULL, created_at TEXT NOT NULL, record TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS runs_by_age ON runs (created_at);
CREATE INDEX IF NOT EXISTS runs_live ON runs (phase) WHERE phase != 'done';
CREATE TABLE IF NOT EXISTS transitions (
    run_id TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE, at TEXT NOT NULL, phase TEXT NOT NULL,
    event TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS transitions_by_run ON transitions (run_id);
CREATE TABLE IF NOT EXISTS registrations (
    url TEXT NOT NULL, flow TEXT NOT NULL, name TEXT NOT NULL, record TEXT NOT NULL,
    PRIMARY KEY (url, flow, name));
CREATE TABLE IF NOT EXISTS inspections (key TEXT PRIMARY KEY, asked_at TEXT NOT NULL, record TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS notes (key TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
_LAST_GOOD = "last good configuration"


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """A deployment that we made the API's: which one it is there, and what we last told it."""

    url: str
    flow: str
    name: str
    deployment_id: str
    fingerprint: str
    major: int
    deployment: Deployment
    paused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """One step of a run's history."""

    at: datetime
    phase: Phase
    event: str


class Journal:
    """The open journal. `moved_aside` names the file that was not a database, if there was one."""

    def __init__(self, *, path: str, now: Callable[[], datetime]) -> None:
        self._path = path
        self._now = now
        self._decoder = Decoder()
        self.moved_aside: str | None = None
        self._db = self._open()

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise JournalError(f"cannot open the journal {self._path}: {error}") from error
        self._move_aside()
        try:
            return self._connect()
        except sqlite3.DatabaseError as error:
            raise JournalError(f"cannot open the journal {self._path}: {error}") from error

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, isolation_level=None)
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            db.execute("PRAGMA foreign_keys=ON")
            db.execute("PRAGMA cache_size=-256")
            db.executescript(_SCHEMA)
            os.chmod(self._path, 0o600)  # it holds parameters and paths
        except BaseException:
            db.close()
            raise
        return db

    def _move_aside(self) -> None:
        stamp = self._now().strftime("%Y%m%dT%H%M%S")
        self.moved_aside = f"{self._path}.corrupt-{stamp}"
        os.replace(self._path, self.moved_aside)
        for suffix in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.replace(self._path + suffix, self.moved_aside + suffix)

    def close(self) -> None:
        self._db.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it is on disk at the end, or none."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise JournalError(f"cannot write the journal {self._path}: {error}") from error

    def _rows(self, query: str, *values: object) -> list[tuple[str, ...]]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise JournalError(f"cannot read the journal {self._path}: {error}") from error

    # --- runs ---------------------------------------------------------------------------------------------------

    def save(self, record: RunRecord, event: str) -> None:
        """Record where a run stands now and what brought it there."""
        with self._writing() as db:
            self._put(db, record, event)

    def _put(self, db: sqlite3.Connection, record: RunRecord, event: str) -> None:
        db.execute(
            "INSERT INTO runs (id, name, phase, created_at, record) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET name=excluded.name, phase=excluded.phase,"
            " created_at=excluded.created_at, record=excluded.record",
            (record.id, record.name, record.phase, record.created_at.isoformat(), json.dumps(to_json(record))),
        )
        db.execute(
            "INSERT INTO transitions (run_id, at, phase, event) VALUES (?, ?, ?, ?)",
            (record.id, self._now().isoformat(), record.phase, event),
        )

    def withdraw(self, run_id: str, before: RunRecord | None) -> None:
        """Undo a claim that was lost: the run's earlier record here comes back, or nothing of it stays."""
        with self._writing() as db:
            if before is None:
                db.execute("DELETE FROM runs WHERE id = ?", (run_id,))
            else:
                self._put(db, before, "claimed elsewhere")  # over the claim's record; the history stays

    def unfinished(self) -> list[RunRecord]:
        """Every run that is not done, oldest first."""
        return self._records("SELECT record FROM runs WHERE phase != 'done' ORDER BY created_at")

    def history(self, limit: int = 1000) -> list[RunRecord]:
        """Runs of any phase, newest first."""
        return self._records("SELECT record FROM runs ORDER BY created_at DESC LIMIT ?", limit)

    def run(self, run_id: str) -> RunRecord | None:
        found = self._records("SELECT record FROM runs WHERE id = ?", run_id)
        return found[0] if found else None

    def find(self, ref: str) -> list[RunRecord]:
        """Runs whose id is `ref` or starts with it, and those of that name; each sort newest first."""
        pattern = ref.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
        by_id = "SELECT record FROM runs WHERE id LIKE ? ESCAPE '\\' ORDER BY created_at DESC LIMIT 20"
        by_name = "SELECT record FROM runs WHERE name = ? ORDER BY created_at DESC LIMIT 20"
        found = [*self._records(by_id, pattern), *self._records(by_name, ref)]
        return list({record.id: record for record in found}.values())

    def transitions(self, run_id: str) -> list[Transition]:
        rows = self._rows("SELECT at, phase, event FROM transitions WHERE run_id = ? ORDER BY rowid", run_id)
        return [Transition(at=datetime.fromisoformat(at), phase=Phase(phase), event=event) for at, phase, event in rows]

    def prune(self, *, before: datetime, max_runs: int) -> list[RunRecord]:
        """Forget finished runs older than `before` or beyond the newest `max_runs`; those forgotten."""
        gone = self._records(
            "SELECT record FROM runs WHERE phase = 'done' AND (created_at < ? OR id NOT IN"
            " (SELECT id FROM runs ORDER BY created_at DESC LIMIT ?))",
            before.isoformat(),
            max_runs,
        )
        if gone:
            with self._writing() as db:
                db.executemany("DELETE FROM runs WHERE id = ?", [(record.id,) for record in gone])
        return gone

    def _records(self, query: str, *values: object) -> list[RunRecord]:
        return [self._decoder.decode(RunRecord, json.loads(row[0])) for row in self._rows(query, *values)]

    # --- what the API knows of our deployments --------------------------------------------------------------------

    def registrations(self, url: str) -> list[Registration]:
        rows = self._rows("SELECT record FROM registrations WHERE url = ?", url)
        return [self._decoder.decode(Registration, json.loads(row[0])) for row in rows]

    def save_registration(self, registration: Registration) -> None:
        key = (registration.url, registration.flow, registration.name)
        with self._writing() as db:
            db.execute(
                "INSERT OR REPLACE INTO registrations (url, flow, name, record) VALUES (?, ?, ?, ?)",
                (*key, json.dumps(to_json(registration))),
            )

    def drop_registration(self, registration: Registration) -> None:
        key = (registration.url, registration.flow, registration.name)
        with self._writing() as db:
            db.execute("DELETE FROM registrations WHERE url = ? AND flow = ? AND name = ?", key)

    # --- what flows' interpreters said ------------------------------------------------------------------------------

    def inspections(self) -> dict[str, Inspection]:
        """Every remembered inspection by its cache key."""
        rows = self._rows("SELECT key, record FROM inspections")
        return {key: self._decoder.decode(Inspection, json.loads(record)) for key, record in rows}

    def save_inspections(self, found: dict[str, Inspection]) -> None:
        now = self._now().isoformat()
        rows = [(key, now, json.dumps(to_json(inspection))) for key, inspection in found.items()]
        with self._writing() as db:
            db.executemany("INSERT OR REPLACE INTO inspections (key, asked_at, record) VALUES (?, ?, ?)", rows)

    def prune_inspections(self, *, before: datetime) -> None:
        """Forget what was asked before then; the worst of it is that it is asked again."""
        with self._writing() as db:
            db.execute("DELETE FROM inspections WHERE asked_at < ?", (before.isoformat(),))

    # --- the last configuration without problems --------------------------------------------------------------------

    def last_good(self) -> Config | None:
        """The configuration as it last was in force; None where there is none this version can read."""
        rows = self._rows("SELECT value FROM notes WHERE key = ?", _LAST_GOOD)
        if not rows:
            return None
        try:
            return self._decoder.decode(Config, json.loads(rows[0][0]))
        except (ValueError, TypeError, KeyError):
            return None  # written by another version; it only ever stood in for a file that is broken now

    def save_last_good(self, config: Config) -> None:
        document = json.dumps(to_json(config))
        with self._writing() as db:
            db.execute("INSERT OR REPLACE INTO notes (key, value) VALUES (?, ?)", (_LAST_GOOD, document))
