"""Opens the journal's SQLite file: checks the file for damage, and moves a damaged file aside.

Invariants: a damaged file is neither deleted nor written to again; damage is detected before anything is written, by
a check that reads each page once (0.25 s for 10,000 runs on a cold disk); a file written by a newer runnerd is not
changed.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

from runnerd.core.errors import JournalError

LAYOUT = 1  # user_version; increase only when an older runnerd cannot use the file, not for a new table or key
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
CREATE TABLE IF NOT EXISTS notices (id TEXT PRIMARY KEY, at TEXT NOT NULL, done INTEGER NOT NULL, record TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS unreadable (at TEXT NOT NULL, source TEXT NOT NULL, record, why TEXT NOT NULL);
"""
# auto_vacuum comes first: it is a property of the file, which the first write fixes.
_PRAGMAS = """
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA foreign_keys = ON;
PRAGMA cache_size = -256;
PRAGMA wal_autocheckpoint = 256;
PRAGMA journal_size_limit = 1048576;
"""
_INCREMENTAL = 2  # what PRAGMA auto_vacuum answers
_CONVERT_MAX_BYTES = 512 * 2**20  # some seconds, in which the daemon does not start
_DATABASE_MIN_BYTES = 512  # SQLite's smallest page size
_DISK_FULL_BELOW_BYTES = 65536
_DAMAGE_CODES = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_ACCESS_CODES = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenFile:
    """The journal's open database.

    Where a damaged file was found: `moved_aside` is the path it has now, `why` the damage, and `salvaged` the JSON
    texts of the records of unfinished runs that could still be read from it.
    """

    db: sqlite3.Connection
    moved_aside: str | None = None
    why: str | None = None
    salvaged: tuple[str, ...] = ()


def open_file(path: str, *, at: datetime) -> OpenFile:
    """Open the journal's file, creating it where it is missing or was damaged. Raises JournalError.

    `at` goes into the name that a damaged file gets.
    """
    try:
        why = _damage(path)
        if why is None:
            return OpenFile(db=_connect(path))
        aside = _move_aside(path, at)
        return OpenFile(db=_connect(path), moved_aside=aside, why=why, salvaged=tuple(_salvage(aside)))
    except (sqlite3.Error, OSError) as error:
        raise JournalError(f"cannot open the journal {path}: {error}{what_to_do(error, path)}") from error


def is_damage(error: Exception) -> bool:
    """Whether the error means that the file is damaged, so that a retry cannot succeed."""
    return _code(error) in _DAMAGE_CODES


def what_to_do(error: Exception, path: str) -> str:
    """Return "; " and what an administrator can do about the error, to append to its message; "" when unknown."""
    code = _code(error)
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and _is_full(path)):
        return "; make room on its disk"
    if code in _DAMAGE_CODES:
        return "; restart runnerd: it moves the file aside and takes over what runs"
    if code in _ACCESS_CODES or isinstance(error, OSError):
        return "; runnerd must be able to write to it and in its directory"
    if code == sqlite3.SQLITE_IOERR:
        return "; check with dmesg whether its disk is read-only or failing"
    return ""


def _is_full(path: str) -> bool:
    """Whether the disk is full: SQLite reports an I/O error, not SQLITE_FULL, where creating a file fails for that."""
    try:
        disk = os.statvfs(os.path.dirname(path))
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < _DISK_FULL_BELOW_BYTES


def _code(error: Exception) -> int:
    """Return SQLite's primary result code; 0 for an error that is not SQLite's."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _damage(path: str) -> str | None:
    """Return how the file is damaged; None when it is sound or does not exist.

    Raises JournalError for a newer layout, sqlite3.Error or OSError when the file cannot be read.
    """
    size = _size(path)
    if size < _DATABASE_MIN_BYTES:
        # SQLite would take so short a file for a new database and delete its write-ahead log.
        return f"only {size} bytes are left of it" if size or _size(f"{path}-wal") else None
    try:
        # Read-only: closing a writing connection would copy the write-ahead log into the damaged file.
        with contextlib.closing(_reader(path)) as db:
            (layout,) = db.execute("PRAGMA user_version").fetchone()
            if layout > LAYOUT:
                raise JournalError(
                    f"cannot open the journal {path}: a newer runnerd wrote it (its layout is {layout}, this one knows"
                    f" {LAYOUT}); install that version again, or move the file away to begin without it"
                )
            (finding,) = db.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        if is_damage(error):
            return str(error)
        raise
    return None if finding == "ok" else str(finding)


def _reader(path: str) -> sqlite3.Connection:
    db = sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, isolation_level=None)
    db.text_factory = lambda raw: raw.decode("utf-8", "replace")
    return db


def _connect(path: str) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None)
    try:
        os.chmod(path, 0o600)  # the records hold flows' parameters
        db.executescript(_PRAGMAS)
        db.executescript(_SCHEMA)
        if db.execute("PRAGMA user_version").fetchone() != (LAYOUT,):
            db.execute(f"PRAGMA user_version = {LAYOUT}")
        make_shrinkable(db, path)
    except BaseException:
        db.close()
        raise
    # With the default, one row that is not valid UTF-8 would make the whole query fail.
    db.text_factory = lambda raw: raw.decode("utf-8", "replace")
    return db


def make_shrinkable(
    db: sqlite3.Connection, path: str, *, statvfs: Callable[[str], os.statvfs_result] = os.statvfs
) -> None:
    """Convert a file of an earlier runnerd, once, to one that can give unused pages back without being copied."""
    size = _size(path)
    if db.execute("PRAGMA auto_vacuum").fetchone() == (_INCREMENTAL,) or size > _CONVERT_MAX_BYTES:
        return
    disk = statvfs(os.path.dirname(path) or ".")
    if disk.f_bavail * disk.f_frsize > 3 * size:  # the copy, and the write-ahead log of writing it back
        # Without it the journal works as before: its unused pages are used again, and none is given back.
        with contextlib.suppress(sqlite3.OperationalError), _temporary_files_in(os.path.dirname(path) or "."):
            db.executescript("PRAGMA auto_vacuum = INCREMENTAL; VACUUM;")


@contextlib.contextmanager
def _temporary_files_in(directory: str) -> Iterator[None]:
    """Have SQLite put its temporary files there: a service may write into no directory that SQLite would choose."""
    before = os.environ.get("SQLITE_TMPDIR")
    os.environ["SQLITE_TMPDIR"] = directory
    try:
        yield
    finally:
        del os.environ["SQLITE_TMPDIR"]
        if before is not None:
            os.environ["SQLITE_TMPDIR"] = before


def _move_aside(path: str, at: datetime) -> str:
    """Rename the file and its write-ahead log; return the new name, which no file had before."""
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
    """Read the records of unfinished runs, row by row, so that a damaged page loses only the rows on it."""
    if _size(path) < _DATABASE_MIN_BYTES:
        return  # SQLite would delete its write-ahead log, even on a read-only connection
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
