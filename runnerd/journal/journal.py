"""The journal: one SQLite file with the records of this host's runs, and caches that a restart needs.

Invariants: every change is one transaction, on disk (WAL, synchronous FULL) when the call returns. A change of a run
that cannot be written raises JournalError, and no run is claimed until writing works again. Writing a cache
(registrations, inspections, the last good configuration) raises nothing; a failure is in `problem`. A row that cannot
be decoded is moved to the table `unreadable` and does not hide the other rows.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from runnerd.core.codec import Decoder, to_json
from runnerd.core.errors import JournalError
from runnerd.core.machine import Phase, RunRecord
from runnerd.core.names import describe_unfit_name
from runnerd.core.notices import Notice
from runnerd.core.prefect import Inspection
from runnerd.core.settings import Config, Deployment
from runnerd.journal.journal_file import is_damage, open_file, what_to_do
from runnerd.journal.notice_rows import NoticeRows
from runnerd.log.alerts import Alert
from runnerd.log.log import Log

T = TypeVar("T")
_LAST_GOOD, _TRIAL = "last good configuration", "trial"
_UNUSED_PAGES_KEPT = 256  # 1 MiB, for the next runs
_TRIAL_BYTES = 65536  # several times what a run writes from its claim to its end
_MEANWHILE = "meanwhile no run is claimed, and running flows go on"
# By table: the SQL expression of a row's name, and the column of its JSON document.
_COLUMNS = {
    "runs": ("id", "record"),
    "registrations": ("flow || '/' || name", "record"),
    "inspections": ("key", "record"),
    "notes": ("key", "value"),
    "notices": ("id", "record"),
}
_UNREADABLE = (ValueError, TypeError, KeyError, RecursionError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """A deployment that this host has registered with the API at `url`, as it was last sent.

    `fingerprint`: digest of the body last sent. `major`: the server's major version then. `paused`: this host paused
    the deployment because it left the files. `pausing`: the request to pause may not have reached the API.
    `schedule_ids`: the ids of `deployment.schedules` in the API; none where an older version registered it.
    """

    url: str
    flow: str
    name: str
    deployment_id: str
    fingerprint: str
    major: int
    deployment: Deployment
    paused: bool = False
    pausing: bool = False
    schedule_ids: tuple[str, ...] = ()
    automations: str = ""  # digest of the triggers whose automations are in the API; empty for none


class Journal:
    """Reads and writes the journal's file. Raises JournalError at construction when the file cannot be opened.

    `moved_aside`: the present path of a damaged file that was found at `path`. `problem`: why nothing can be written
    and what to do, None while writing works. `notice`: what happened to the damaged file.
    """

    def __init__(self, *, path: str, now: Callable[[], datetime], log: Log) -> None:
        self._path = path
        self._now = now
        self._log = log
        self._decoder = Decoder()
        self._logged_rows: set[str] = set()  # unreadable rows; one that cannot be moved is found at every read
        self._damaged = False
        self.problem: str | None = None
        self.notices = NoticeRows(writing=self._writing, decoded=self._decoded)
        self.registration_changes = 0  # since this object was made
        opened = open_file(path, at=now())
        self._db, self.moved_aside = opened.db, opened.moved_aside
        self.notice: str | None = None
        if opened.moved_aside is not None:
            self._save_salvaged(opened.moved_aside, opened.why or "", opened.salvaged)

    def _save_salvaged(self, aside: str, why: str, salvaged: Sequence[str]) -> None:
        """Save the salvaged records: an old one does no harm, because adopting reads each run's state from the API."""
        count = 0
        for text in salvaged:
            # A record that cannot be decoded or written is dropped: a run with a process is adopted from the spawner.
            with contextlib.suppress(JournalError, *_UNREADABLE):
                self.save(self._decoder.decode(RunRecord, json.loads(text)), "read from a damaged journal")
                count += 1
        self.notice = (
            f"the journal was damaged ({why}) and is now {aside}: the history is in there; {count} runs under way were"
            " read from it, and others that the spawner has are taken over without their deployments' names"
        )
        what, alert = "the journal was damaged; moved the file aside", Alert.JOURNAL_DAMAGED
        self._log.error(what, why=why, to=aside, runs=count, alert=alert)

    def close(self) -> None:
        """Close the file; no other method may be called after this."""
        self._db.close()

    # --- trouble ------------------------------------------------------------------------------------------------

    def try_writing(self) -> None:
        """Write and delete more bytes than a run needs, and clear `problem`. Raises JournalError when that fails."""
        if self._damaged:
            raise JournalError(self.problem or "")
        with contextlib.suppress(sqlite3.Error):  # frees disk space: truncates the write-ahead log
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        with self._writing() as db:
            db.execute("INSERT OR REPLACE INTO notes (key, value) VALUES (?, ?)", (_TRIAL, "." * _TRIAL_BYTES))
        with self._writing() as db:
            db.execute("DELETE FROM notes WHERE key = ?", (_TRIAL,))
        if self.problem is not None:
            self.problem = None
            self._log.info("the journal works again", alert=Alert.JOURNAL_WORKS)

    def _trouble(self, error: sqlite3.Error, verb: str) -> JournalError:
        """Set `problem`, log a new one, and return the exception to raise."""
        what = f"cannot {verb} the journal {self._path}: {error}"
        problem = f"{what}{what_to_do(error, self._path)}; {_MEANWHILE}"
        # After damage the problem stays as it is: later errors follow from the damage, and only a restart helps.
        if problem != self.problem and not self._damaged:
            self.problem = problem
            self._log.error("cannot use the journal", why=problem, alert=Alert.JOURNAL_FAILS)
        self._damaged = self._damaged or is_damage(error)
        return JournalError(what)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Run one transaction: at the end all of its changes are on disk, or none. Raises JournalError."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield self._db
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            raise self._trouble(error, "write") from error
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        # On a full disk SQLite has rolled back already; a ROLLBACK then fails, and its error would hide the cause.
        with contextlib.suppress(sqlite3.Error):
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    def _rows(self, query: str, *values: object) -> list[tuple[str, ...]]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise self._trouble(error, "read") from error

    def _decoded(self, kind: type[T], table: str, rest: str, *values: object) -> list[tuple[str, T]]:
        """Return the name and the decoded document of each row; move rows that cannot be decoded."""
        name, document = _COLUMNS[table]
        found = []
        for rowid, key, text in self._rows(f"SELECT rowid, {name}, {document} FROM {table} {rest}", *values):
            try:
                found.append((key, self._decoder.decode(kind, json.loads(text))))
            except _UNREADABLE as error:
                self._set_aside(table, rowid, key, f"{type(error).__name__}: {error}")
        return found

    def _set_aside(self, table: str, rowid: str, key: str, why: str) -> None:
        row = f"{table} {key}"
        if row not in self._logged_rows:
            self._log.error("cannot read a row of the journal; moved it aside", row=row, why=why)
        self._logged_rows.add(row)
        with contextlib.suppress(JournalError), self._writing() as db:
            db.execute(
                f"INSERT INTO unreadable (at, source, record, why) SELECT ?, ?, {_COLUMNS[table][1]}, ? FROM {table}"
                " WHERE rowid = ?",
                (self._now().isoformat(), row, why, rowid),
            )
            db.execute(f"DELETE FROM {table} WHERE rowid = ?", (rowid,))

    # --- runs ---------------------------------------------------------------------------------------------------

    def save(self, record: RunRecord, event: str, *, notices: Iterable[Notice] = ()) -> None:
        """Write a run's record, a transition with the `event` that changed it, and `notices`. Raises JournalError."""
        if self.problem is not None and record.phase is Phase.CLAIMING:
            self.try_writing()  # on a nearly full disk the claim may still fit where the run's later steps would not
        with self._writing() as db:
            self._put(db, record, event)
            self.notices.put(db, notices)

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

    def withdraw_claim(self, run_id: str, before: RunRecord | None) -> None:
        """Undo a lost claim: restore the run's record from before the claim, or delete the run when it had none."""
        with self._writing() as db:
            if before is None:
                db.execute("DELETE FROM runs WHERE id = ?", (run_id,))
            else:
                self._put(db, before, "claimed elsewhere")  # the transitions of the claim stay

    def unfinished(self) -> list[RunRecord]:
        """Return every run that is not done, oldest first."""
        return self._records("WHERE phase != 'done' ORDER BY created_at")

    def history(self, limit: int = 1000) -> list[RunRecord]:
        """Return the newest `limit` runs of any phase, newest first."""
        return self._records("ORDER BY created_at DESC LIMIT ?", limit)

    def unread(self) -> list[str]:
        """Return the ids of the runs that a receipt has ended and that were not read from the API since."""
        return [r.id for r in self._records("WHERE phase = 'done' AND record LIKE '%\"unread\": true%'") if r.unread]

    def run(self, run_id: str) -> RunRecord | None:
        """Return the record of one run; None when the journal has none."""
        return next(iter(self._records("WHERE id = ?", run_id)), None)

    def find(self, ref: str) -> list[RunRecord]:
        """Return up to 20 runs whose id starts with `ref`, then up to 20 named `ref`; newest first in each group.

        `ref` may be any text: one that no name can be would be an error of SQLite, and none of the journal's.
        """
        if describe_unfit_name(ref) is not None:
            return []
        pattern = ref.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
        by_id = self._records("WHERE id LIKE ? ESCAPE '\\' ORDER BY created_at DESC LIMIT 20", pattern)
        by_name = self._records("WHERE name = ? ORDER BY created_at DESC LIMIT 20", ref)
        return list({record.id: record for record in (*by_id, *by_name)}.values())

    def prunable(self, *, before: datetime, max_runs: int, limit: int) -> list[RunRecord]:
        """Return the oldest `limit` finished runs that are older than `before` or beyond the newest `max_runs`."""
        return self._records(
            # The inner queries read an index only: most of the time they find nothing, and no record is read.
            "WHERE phase = 'done' AND rowid IN (SELECT rowid FROM runs WHERE created_at < ? UNION ALL SELECT * FROM"
            " (SELECT rowid FROM runs ORDER BY created_at LIMIT max(0, (SELECT count(*) FROM runs) - ?)))"
            " ORDER BY created_at LIMIT ?",
            before.isoformat(),
            max_runs,
            limit,
        )

    def forget(self, run_ids: Iterable[str]) -> None:
        """Delete these runs and their transitions. Raises JournalError."""
        with self._writing() as db:
            db.executemany("DELETE FROM runs WHERE id = ?", [(run_id,) for run_id in run_ids])

    def return_space(self, max_pages: int) -> bool:
        """Give up to `max_pages` unused pages back to the disk; return whether there are more. Raises JournalError."""
        try:
            (unused,) = self._db.execute("PRAGMA freelist_count").fetchone()
            if unused <= _UNUSED_PAGES_KEPT:
                return False
            # Not `execute`, which takes one step of a statement without columns: here, one page.
            self._db.executescript(f"PRAGMA incremental_vacuum({min(max_pages, unused - _UNUSED_PAGES_KEPT)})")
            (left,) = self._db.execute("PRAGMA freelist_count").fetchone()
        except sqlite3.Error as error:
            raise self._trouble(error, "write") from error
        return bool(_UNUSED_PAGES_KEPT < left < unused)

    def _records(self, rest: str, *values: object) -> list[RunRecord]:
        return [record for _, record in self._decoded(RunRecord, "runs", rest, *values)]

    # --- caches ---------------------------------------------------------------------------------------------------

    def registrations(self, url: str) -> list[Registration]:
        """Return what this host has registered with the API at `url`; what was saved last comes last."""
        # Each INSERT OR REPLACE gives the row a new rowid.
        return list(self._remembered(Registration, "registrations", "WHERE url = ? ORDER BY rowid", url).values())

    def save_registration(self, registration: Registration) -> None:
        self.registration_changes += 1
        row = (registration.url, registration.flow, registration.name, json.dumps(to_json(registration)))
        self._remember("INSERT OR REPLACE INTO registrations (url, flow, name, record) VALUES (?, ?, ?, ?)", [row])

    def drop_registration(self, registration: Registration) -> None:
        self.registration_changes += 1
        key = (registration.url, registration.flow, registration.name)
        self._remember("DELETE FROM registrations WHERE url = ? AND flow = ? AND name = ?", [key])

    def inspection(self, key: str) -> Inspection | None:
        """Return the cached inspection of this cache key."""
        return self._remembered(Inspection, "inspections", "WHERE key = ?", key).get(key)

    def save_inspections(self, found: dict[str, Inspection]) -> None:
        rows = [(key, self._now().isoformat(), json.dumps(to_json(inspection))) for key, inspection in found.items()]
        self._remember("INSERT OR REPLACE INTO inspections (key, asked_at, record) VALUES (?, ?, ?)", rows)

    def prune_memories(self, *, before: datetime) -> None:
        """Delete inspections made and unreadable rows moved before `before`."""
        self._remember("DELETE FROM inspections WHERE asked_at < ?", [(before.isoformat(),)])
        self._remember("DELETE FROM unreadable WHERE at < ?", [(before.isoformat(),)])

    def last_good(self) -> Config | None:
        """Return the configuration that was last in force; None when there is none that this version can decode."""
        return self.note(Config, _LAST_GOOD)

    def save_last_good(self, config: Config) -> None:
        self.save_note(_LAST_GOOD, config)

    def note(self, kind: type[T], key: str) -> T | None:
        return self._remembered(kind, "notes", "WHERE key = ?", key).get(key)

    def save_note(self, key: str, value: object) -> None:
        self._remember("INSERT OR REPLACE INTO notes (key, value) VALUES (?, ?)", [(key, json.dumps(to_json(value)))])

    def _remembered(self, kind: type[T], table: str, rest: str, *values: object) -> dict[str, T]:
        try:
            return dict(self._decoded(kind, table, rest, *values))
        except JournalError:  # it is in `problem`; without the cache, flows are inspected and registered again
            return {}

    def _remember(self, statement: str, rows: Sequence[tuple[str, ...]]) -> None:
        with contextlib.suppress(JournalError), self._writing() as db:
            db.executemany(statement, rows)
