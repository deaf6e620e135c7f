"""The journal's file: opened, checked, and moved aside where it is damaged.

Invariants: a damaged file is neither deleted nor written to again; it is found out before anything is changed, by a
check that reads each page once (a quarter of a second for 10,000 runs on a cold disk); a file that a newer runnerd
wrote is left as it is.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

from runnerd.core.errors import JournalError

LAYOUT = 1  # grows when an older runnerd could not use the file any more; a new table or key is no reason
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
CREATE TABLE IF NOT EXISTS unreadable (at TEXT NOT NULL, source TEXT NOT NULL, record, why TEXT NOT NULL);
"""
_PRAGMAS = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA foreign_keys = ON;
PRAGMA cache_size = -256;
PRAGMA wal_autocheckpoint = 256;
PRAGMA journal_size_limit = 1048576;
"""
_SMALLEST = 512  # bytes a database has at least
_SMALLEST_ROOM = 65536
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_PLACE = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenFile:
    """The journal's database; `moved_aside` and `why` where there was a damaged one, and what it told of live runs."""

    db: sqlite3.Connection
    moved_aside: str | None = None
    why: str | None = None
    salvaged: tuple[str, ...] = ()


def open_file(path: str, *, at: datetime) -> OpenFile:
    """Open it, made anew where it is missing or damaged. Raises JournalError."""
    try:
        why = _damage(path)
        if why is None:
            return OpenFile(db=_connect(path))
        aside = _move_aside(path, at)
        return OpenFile(db=_connect(path), moved_aside=aside, why=why, salvaged=tuple(_salvage(aside)))
    except (sqlite3.Error, OSError) as error:
        raise JournalError(f"cannot open the journal {path}: {error}{what_to_do(error, path)}") from error


def is_damage(error: Exception) -> bool:
    """Whether the file itself is broken, so that trying again cannot help."""
    return _code(error) in _DAMAGE


def what_to_do(error: Exception, path: str) -> str:
    """What an administrator is to do about it, to be put behind the words of the error."""
    code = _code(error)
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and _is_full(path)):
        return "; make room on its disk"
    if code in _DAMAGE:
        return "; restart runnerd: it moves the file aside and takes over what runs"
    if code in _PLACE or isinstance(error, OSError):
        return "; runnerd must be able to write to it and in its directory"
    if code == sqlite3.SQLITE_IOERR:
        return "; is its disk read-only or failing? dmesg tells"
    return ""


def _is_full(path: str) -> bool:
    """Whether there is too little room left: SQLite calls it an I/O error where it makes a file anew."""
    try:
        disk = os.statvfs(os.path.dirname(path))
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < _SMALLEST_ROOM


def _code(error: Exception) -> int:
    """SQLite's primary result code; 0 where it is not SQLite's error."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _damage(path: str) -> str | None:
    """What is wrong with the file that is there; None when nothing is, or when there is none."""
    size = _size(path)
    if size < _SMALLEST:
        # SQLite would take it for a new one and remove the log beside it.
        return f"only {size} bytes are left of it" if size or _size(f"{path}-wal") else None
    try:
        # For reading only: closing a writer would copy the log into the damaged file.
        with contextlib.closing(_reader(path)) as db:
            (layout,) = db.execute("PRAGMA user_version").fetchone()
            if layout > LAYOUT:
                raise JournalError(
                    f"cannot open the journal {path}: a newer runnerd wrote it (its layout is {layout}, this one knows"
                    f" {LAYOUT}); install that version again, or move the file away to begin without it"
                )
            (said,) = db.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        if is_damage(error):
            return str(error)
        raise
    return None if said == "ok" else str(said)


def _reader(path: str) -> sqlite3.Connection:
    db = sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, isolation_level=None)
    db.text_factory = lambda raw: raw.decode("utf-8", "replace")
    return db


def _connect(path: str) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None)
    try:
        os.chmod(path, 0o600)  # it holds parameters and paths
        db.executescript(_PRAGMAS)
        db.executescript(_SCHEMA)
        if db.execute("PRAGMA user_version").fetchone() != (LAYOUT,):
            db.execute(f"PRAGMA user_version = {LAYOUT}")
    except BaseException:
        db.close()
        raise
    # One broken character must not hide a row, and all the rows asked for with it.
    db.text_factory = lambda raw: raw.decode("utf-8", "replace")
    return db


def _move_aside(path: str, at: datetime) -> str:
    """Rename it with its log; the name it has now, which no earlier one has."""
    first = aside = f"{path}.corrupt-{at:%Y%m%dT%H%M%S}"
    number = 1
    while os.path.lexists(aside):
        number += 1
        aside = f"{first}-{number}"
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.replace(path + suffix, aside + suffix)
    return aside


def _salvage(path: str) -> Iterator[str]:
    """The records of runs under way, as far as they can be read: each for itself, because pages are missing."""
    if _size(path) < _SMALLEST:
        return  # and SQLite would remove the log of it, even when only reading
    with contextlib.suppress(sqlite3.Error), contextlib.closing(_reader(path)) as db:
        rows = db.execute("SELECT rowid FROM runs INDEXED BY runs_live WHERE phase != 'done'")
        while (found := rows.fetchone()) is not None:
            with contextlib.suppress(sqlite3.Error):
                for (record,) in db.execute("SELECT record FROM runs WHERE rowid = ?", found).fetchall():
                    yield str(record)


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0
