"""journal.py and journalfile.py: damaged files, rows that cannot be read, other versions, and cut power."""

from __future__ import annotations

import contextlib
import resource
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from runnerd.core.errors import JournalError
from runnerd.core.machine import Phase, RunRecord
from runnerd.core.settings import ApiSettings, Config, Settings
from runnerd.journal.journal import Journal
from runnerd.journal.journal_file import LAYOUT
from tests.kits.nouns import NOON, LogLines, a_record, log_to
from tests.unit.journal.test_journal import INSPECTION, registration

PAGE = 4096
MANY = 60


@contextlib.contextmanager
def opened(path: Path, lines: LogLines | None = None) -> Iterator[Journal]:
    journal = Journal(path=str(path), now=lambda: NOON, log=log_to(lines if lines is not None else LogLines()))
    try:
        yield journal
    finally:
        journal.close()


def running(name: str) -> RunRecord:
    return a_record(name, phase=Phase.RUNNING, words="w" * 900)


def ids(records: list[RunRecord]) -> list[str]:
    return [record.id for record in records]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A closed journal of many runs, some of them under way."""
    path = tmp_path / "journal.db"
    with opened(path) as journal:
        for number in range(MANY):
            journal.save(running(f"r-{number:02}"), "started")
            if number % 3 == 0:
                journal.save(replace(running(f"r-{number:02}"), phase=Phase.DONE), "told")
    return path


LIVE = {f"r-{number:02}" for number in range(MANY) if number % 3}


def is_refused(journal: Journal) -> None:
    """Nothing is claimed; what is only remembered to save work is no reason to fail."""
    with pytest.raises(JournalError, match="restart runnerd: it moves the file aside and takes over what runs"):
        journal.save(a_record("new"), "claiming")
    assert "no run is claimed" in (journal.problem or "")


# --- found when it is opened --------------------------------------------------------------------------------------


def test_a_journal_cut_off_anywhere_is_moved_aside_as_it_was(written: Path, tmp_path: Path) -> None:
    whole = written.read_bytes()
    assert len(whole) > 20 * PAGE
    for size in (1, 99, 100, 512, PAGE - 1, PAGE, PAGE + 1, len(whole) // 2, len(whole) - PAGE - 1, len(whole) - PAGE):
        path = tmp_path / f"cut-{size}.db"
        path.write_bytes(whole[:size])
        lines = LogLines()
        with opened(path, lines) as journal:
            assert journal.moved_aside is not None, size
            assert Path(journal.moved_aside).read_bytes() == whole[:size]
            assert journal.moved_aside in (journal.notice or "")
            assert journal.problem is None
            assert set(ids(journal.unfinished())) <= LIVE
            journal.save(a_record("new"), "claiming")
        assert lines.events("error") == ["the journal was damaged; moved the file aside"]


def test_a_page_overwritten_anywhere(written: Path, tmp_path: Path) -> None:
    """What was under way is taken over from the pages that are left."""
    whole, most = written.read_bytes(), 0
    for number in range(0, len(whole) // PAGE, 3):
        path = tmp_path / f"page-{number}.db"
        path.write_bytes(whole[: number * PAGE] + b"\xa5" * PAGE + whole[(number + 1) * PAGE :])
        with opened(path) as journal:
            assert journal.moved_aside is not None, number
            found = journal.unfinished()
            assert set(ids(found)) <= LIVE
            assert all(record == running(record.id) for record in found)
            most = max(most, len(found))
            assert f"; {len(found)} runs under way" in (journal.notice or "")
    assert most > len(LIVE) / 2


@pytest.mark.parametrize("there", [True, False])
def test_no_more_than_a_log_is_left(tmp_path: Path, there: bool) -> None:
    path = tmp_path / "journal.db"
    with opened(path) as journal:
        journal.save(running("r-1"), "started")
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", tmp_path / f"copy.db{suffix}")
    log = (tmp_path / "copy.db-wal").read_bytes()
    (tmp_path / "copy.db").unlink()
    if there:
        (tmp_path / "copy.db").touch()
    with opened(tmp_path / "copy.db") as journal:
        assert journal.moved_aside is not None
        assert Path(f"{journal.moved_aside}-wal").read_bytes() == log


def test_two_damaged_files_in_one_second_are_two_files(tmp_path: Path) -> None:
    path, aside = tmp_path / "journal.db", set()
    for content in (b"first " * 1000, b"second " * 1000, b"third " * 1000):
        path.write_bytes(content)
        with opened(path) as journal:
            aside.add(str(journal.moved_aside))
        path.unlink()
    assert sorted(Path(one).read_bytes()[:5] for one in aside) == [b"first", b"secon", b"third"]


def test_a_damaged_file_that_cannot_be_moved_is_left(tmp_path: Path) -> None:
    path = tmp_path / ("j" * 240)  # any longer name is too long for the file system
    path.write_bytes(b"garbage " * 1000)
    with pytest.raises(JournalError, match=r"cannot open the journal .*File name too long"):
        Journal(path=str(path), now=lambda: NOON)
    assert path.read_bytes() == b"garbage " * 1000


def test_a_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    with pytest.raises(JournalError, match=r"cannot open the journal .*unable to open database file; runnerd must be"):
        Journal(path=str(tmp_path / "state" / "journal.db"), now=lambda: NOON)


def test_a_directory_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "journal.db").mkdir()
    with pytest.raises(JournalError, match=r"cannot open the journal .*disk I/O error; check with dmesg"):
        Journal(path=str(tmp_path / "journal.db"), now=lambda: NOON)


def test_a_database_of_somebody_else_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE runs (x)")
    with pytest.raises(JournalError, match=r"cannot open the journal .*no such column"):
        Journal(path=str(path), now=lambda: NOON)
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT sql FROM sqlite_master WHERE name = 'runs'").fetchall() == [
            ("CREATE TABLE runs (x)",)
        ]


def test_a_journal_of_a_newer_version_is_left_as_it_is(written: Path) -> None:
    with contextlib.closing(sqlite3.connect(written)) as db:
        db.execute(f"PRAGMA user_version = {LAYOUT + 1}")
    before = written.read_bytes()
    with pytest.raises(JournalError, match=rf"a newer runnerd wrote it \(its layout is {LAYOUT + 1}, .*install that"):
        Journal(path=str(written), now=lambda: NOON)
    assert written.read_bytes() == before


def test_a_journal_of_an_older_version_is_brought_up_to_date(written: Path) -> None:
    with contextlib.closing(sqlite3.connect(written)) as db:
        db.execute("PRAGMA user_version = 0")
        db.execute("DROP TABLE unreadable")
    with opened(written) as journal:
        assert set(ids(journal.unfinished())) == LIVE
    with contextlib.closing(sqlite3.connect(written)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (LAYOUT,)


# --- found later --------------------------------------------------------------------------------------------------


def overwrite(path: Path) -> None:
    """All of it but the page that every connection reads first."""
    with open(path, "r+b") as file:
        size = file.seek(0, 2)
        file.seek(PAGE)
        file.write(b"\xa5" * (size - PAGE))


def test_damage_found_while_it_is_used(written: Path) -> None:
    """It lasts until a restart, whatever still works: a page that is broken stays so."""
    lines = LogLines()
    with opened(written, lines) as journal:
        overwrite(written)
        with pytest.raises(JournalError, match=r"cannot read the journal .*malformed"):
            journal.history()
        assert "restart runnerd: it moves the file aside" in (journal.problem or "")
        for again in (1, 2):
            with pytest.raises(JournalError, match="restart runnerd"):
                journal.save(a_record(f"new-{again}"), "claiming")
            with pytest.raises(JournalError, match="restart runnerd"):
                journal.try_writing()
        with pytest.raises(JournalError):
            journal.save(running("r-01"), "x")
        assert lines.events("error") == ["cannot use the journal"], "once"
        # What is only remembered to save work is no reason to fail.
        assert (journal.registrations("u"), journal.inspections(), journal.last_good()) == ([], {}, None)
        journal.save_inspections({"key": INSPECTION})
        journal.save_registration(registration("a"))
    with opened(written) as journal:
        assert journal.moved_aside is not None
        assert journal.problem is None


def test_other_words_do_not_cover_up_damage(written: Path) -> None:
    with opened(written) as journal:
        overwrite(written)
        with pytest.raises(JournalError, match="malformed"):
            journal.history()
        journal.close()
        with pytest.raises(JournalError, match="closed"):
            journal.history()
        assert "malformed" in (journal.problem or "")


@contextlib.contextmanager
def no_file_may_grow() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_trouble_where_even_the_directory_has_gone(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    with opened(tmp_path / "state" / "journal.db") as journal:
        (tmp_path / "state").rename(tmp_path / "elsewhere")
        with no_file_may_grow(), pytest.raises(JournalError, match="cannot write the journal"):
            for number in range(100):
                journal.save(running(f"r-{number}"), "started")
        assert "check with dmesg whether its disk is read-only or failing" in (journal.problem or "")
        (tmp_path / "elsewhere").rename(tmp_path / "state")


def test_a_file_that_may_not_grow_is_trouble_in_words(tmp_path: Path) -> None:
    lines = LogLines()
    with opened(tmp_path / "journal.db", lines) as journal:
        with no_file_may_grow():
            with pytest.raises(JournalError, match="cannot write the journal"):
                for number in range(100):
                    journal.save(running(f"r-{number}"), "started")
            with pytest.raises(JournalError):
                journal.save(a_record("new"), "claiming")
        assert "check with dmesg whether its disk is read-only or failing; no run is" in (journal.problem or "")
        assert lines.events("error") == ["cannot use the journal"]
        journal.try_writing()
        journal.try_writing()
        assert (journal.problem, lines.events("info")) == (None, ["the journal works again"])


# --- rows that cannot be read -------------------------------------------------------------------------------------


BAD = ["", "no json", "[]", '"text"', "{}", '{"id": 5}', "[" * 100_000, b"\xff\xfe broken", 7]


def put(path: Path, statement: str, *values: object) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(statement, values)


@pytest.mark.parametrize("bad", BAD, ids=[str(number) for number in range(len(BAD))])
def test_a_row_that_cannot_be_read_is_set_aside(written: Path, bad: object) -> None:
    put(written, "UPDATE runs SET record = ? WHERE id = 'r-01'", bad)
    lines = LogLines()
    with opened(written, lines) as journal:
        assert set(ids(journal.unfinished())) == LIVE - {"r-01"}
        (line,) = lines.all()
        assert (line["event"], line["row"]) == ("cannot read a row of the journal; moved it aside", "runs r-01")
        assert (journal.run("r-01"), journal.moved_aside, journal.problem) == (None, None, None)
        journal.save(running("r-01"), "taken over from the spawner")
    with contextlib.closing(sqlite3.connect(written)) as db:
        kept = db.execute("SELECT source, record FROM unreadable").fetchall()
    assert [(source, str(record)) for source, record in kept] == [("runs r-01", str(bad))]
    with opened(written) as journal:
        assert "r-01" in ids(journal.unfinished())
        journal.prune_memories(before=NOON.replace(year=2099))
    with contextlib.closing(sqlite3.connect(written)) as db:
        assert db.execute("SELECT count(*) FROM unreadable").fetchone() == (0,)


def test_one_broken_character_hides_no_row(written: Path) -> None:
    put(written, "UPDATE runs SET name = CAST(x'66ff' AS TEXT) WHERE id = 'r-01'")
    with opened(written) as journal:
        assert set(ids(journal.unfinished())) == LIVE


def test_a_row_that_cannot_be_set_aside_either_is_told_once(written: Path) -> None:
    put(written, "UPDATE runs SET record = 'x' WHERE id = 'r-01'")
    lines = LogLines()
    with opened(written, lines) as journal, contextlib.closing(sqlite3.connect(written)) as other:
        other.execute("CREATE TRIGGER full BEFORE DELETE ON runs BEGIN SELECT RAISE(FAIL, 'no'); END")
        for _ in range(3):
            assert "r-01" not in ids(journal.unfinished())
    assert lines.events("error").count("cannot read a row of the journal; moved it aside") == 1


def test_other_rows_that_cannot_be_read(written: Path) -> None:
    with opened(written) as journal:
        for name in ("a", "b"):
            journal.save_registration(registration(name))
        journal.save_inspections({"a": INSPECTION, "b": INSPECTION})
        journal.save_last_good(Config(settings=Settings(name="h", api=ApiSettings(url="u"))))
    for table, column, where in (
        ("registrations", "record", "name = 'a'"),
        ("inspections", "record", "key = 'a'"),
        ("notes", "value", "1"),
    ):
        put(written, f"UPDATE {table} SET {column} = '[]' WHERE {where}")
    lines = LogLines()
    with opened(written, lines) as journal:
        assert journal.registrations("u") == [registration("b")]
        assert journal.inspections() == {"b": INSPECTION}
        assert journal.last_good() is None
    rows = [line["row"] for line in lines.all()]
    assert rows == ["registrations etl/a", "inspections a", "notes last good configuration"]


# --- cut power ----------------------------------------------------------------------------------------------------


def copied(path: Path, to: Path, *, log: bytes) -> Path:
    shutil.copy(path, to)
    Path(f"{to}-wal").write_bytes(log)
    return to


def test_cut_power_leaves_a_beginning_of_what_was_saved(tmp_path: Path) -> None:
    """Whatever of the log has reached the disk: the journal opens, and holds the first so many of its steps."""
    path, copy = tmp_path / "journal.db", tmp_path / "copy.db"
    marks = []  # how long the log was when so many steps had been saved
    with opened(path) as journal:
        shutil.copy(path, tmp_path / "begun.db")
        for number in range(7):
            journal.save(running(f"r-{number:02}"), "started")
            marks.append(Path(f"{path}-wal").stat().st_size)
        log = Path(f"{path}-wal").read_bytes()
        shutil.copy(path, tmp_path / "now.db")
    assert len(log) == marks[-1], "the log was begun anew, and this test looks at half of it"
    sizes = sorted({*range(0, len(log), 7001), *(mark + off for mark in marks for off in (-1, 0, 1)), len(log)})
    for size in sizes:
        whole = sum(mark <= size for mark in marks)
        with opened(copied(tmp_path / "now.db", copy, log=log[:size])) as journal:
            assert journal.moved_aside is None, size
            assert ids(journal.unfinished()) == [f"r-{number:02}" for number in range(whole)], size
        for name in ("copy.db-wal", "copy.db-shm"):
            (tmp_path / name).unlink(missing_ok=True)


@pytest.mark.parametrize("rubbish", [b"\xa5", b"\0"])
def test_a_log_that_is_rubbish_from_some_point_on(tmp_path: Path, rubbish: bytes) -> None:
    path, copy = tmp_path / "journal.db", tmp_path / "copy.db"
    with opened(path) as journal:
        for number in range(6):
            journal.save(running(f"r-{number:02}"), "started")
        log = Path(f"{path}-wal").read_bytes()
        shutil.copy(path, tmp_path / "now.db")
    seen = set()
    for size in range(0, len(log), 9001):
        with opened(copied(tmp_path / "now.db", copy, log=log[:size] + rubbish * (len(log) - size))) as journal:
            found = ids(journal.unfinished())
            assert (journal.moved_aside, found) == (None, [f"r-{number:02}" for number in range(len(found))])
            seen.add(len(found))
        for name in ("copy.db-wal", "copy.db-shm"):
            (tmp_path / name).unlink(missing_ok=True)
    assert len(seen) > 3


def test_cut_power_while_the_log_is_copied_into_the_file(tmp_path: Path) -> None:
    """The log is on disk before its pages are copied, so any mixture of old and new pages is mended by it."""
    path, copy = tmp_path / "journal.db", tmp_path / "copy.db"
    with opened(path) as journal:
        journal.save(running("r-00"), "started")
    old = path.read_bytes()
    with opened(path) as journal:
        for number in range(1, 20):
            journal.save(running(f"r-{number:02}"), "started")
        log = Path(f"{path}-wal").read_bytes()
        assert path.read_bytes() == old
    new = path.read_bytes()
    for number in range(1, len(new) // PAGE, 2):
        for mixed in (
            new[: number * PAGE] + old[number * PAGE :],
            new[: number * PAGE + 1000] + old[number * PAGE + 1000 :],
            old[: number * PAGE] + new[number * PAGE :],
        ):
            (tmp_path / "now.db").write_bytes(mixed)
            with opened(copied(tmp_path / "now.db", copy, log=log)) as journal:
                assert journal.moved_aside is None
                assert ids(journal.unfinished()) == [f"r-{number:02}" for number in range(20)]
            for name in ("copy.db-wal", "copy.db-shm"):
                (tmp_path / name).unlink(missing_ok=True)


# --- bounds -------------------------------------------------------------------------------------------------------


def test_the_file_stops_growing(tmp_path: Path) -> None:
    """What is forgotten makes room for what comes: the file is as large as its largest history."""
    path = tmp_path / "journal.db"
    with opened(path) as journal:
        sizes = []
        for cycle in range(6):
            for number in range(30):
                journal.save(replace(running(f"r-{cycle}-{number}"), phase=Phase.DONE), "told")
            old = journal.prunable(before=NOON.replace(year=1), max_runs=30, limit=1000)
            journal.forget(ids(old))
            journal.try_writing()  # copies the log
            sizes.append(path.stat().st_size + Path(f"{path}-wal").stat().st_size)
        assert len(journal.history()) == 30
    assert max(sizes[3:]) <= sizes[2] * 1.1, sizes
