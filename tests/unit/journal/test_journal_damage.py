"""journal.py and journal_file.py: files that are damaged, another's, of another version, or may not grow."""

from __future__ import annotations

import contextlib
import resource
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from runnerd.core.errors import JournalError
from runnerd.journal.journal import Journal
from runnerd.journal.journal_file import LAYOUT
from tests.kits.journal import LIVE, PAGE, ids, opened, running
from tests.kits.nouns import NOON, LogLines, a_record, log_to
from tests.unit.journal.test_journal import INSPECTION, registration


def is_refused(journal: Journal) -> None:
    """Nothing is claimed; what is only remembered to save work is no reason to fail."""
    with pytest.raises(JournalError, match="restart runnerd: it moves the file aside and takes over what runs"):
        journal.save(a_record("new"), "claiming")
    assert "no run is claimed" in (journal.problem or "")


# --- found when it is opened ----------------------------------------------------------------------------------


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
        Journal(path=str(path), now=lambda: NOON, log=log_to(LogLines()))
    assert path.read_bytes() == b"garbage " * 1000


def test_a_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    with pytest.raises(JournalError, match=r"cannot open the journal .*unable to open database file; runnerd must be"):
        Journal(path=str(tmp_path / "state" / "journal.db"), now=lambda: NOON, log=log_to(LogLines()))


def test_a_directory_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "journal.db").mkdir()
    with pytest.raises(JournalError, match=r"cannot open the journal .*disk I/O error; check with dmesg"):
        Journal(path=str(tmp_path / "journal.db"), now=lambda: NOON, log=log_to(LogLines()))


def test_a_database_of_somebody_else_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE runs (x)")
    with pytest.raises(JournalError, match=r"cannot open the journal .*no such column"):
        Journal(path=str(path), now=lambda: NOON, log=log_to(LogLines()))
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT sql FROM sqlite_master WHERE name = 'runs'").fetchall() == [
            ("CREATE TABLE runs (x)",)
        ]


def test_a_journal_of_a_newer_version_is_left_as_it_is(written: Path) -> None:
    with contextlib.closing(sqlite3.connect(written)) as db:
        db.execute(f"PRAGMA user_version = {LAYOUT + 1}")
    before = written.read_bytes()
    with pytest.raises(JournalError, match=rf"a newer runnerd wrote it \(its layout is {LAYOUT + 1}, .*install that"):
        Journal(path=str(written), now=lambda: NOON, log=log_to(LogLines()))
    assert written.read_bytes() == before


def test_a_journal_of_an_older_version_is_brought_up_to_date(written: Path) -> None:
    with contextlib.closing(sqlite3.connect(written)) as db:
        db.execute("PRAGMA user_version = 0")
        db.execute("DROP TABLE unreadable")
    with opened(written) as journal:
        assert set(ids(journal.unfinished())) == LIVE
    with contextlib.closing(sqlite3.connect(written)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (LAYOUT,)


# --- found later ----------------------------------------------------------------------------------------------


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
        assert (journal.registrations("u"), journal.inspection("key"), journal.last_good()) == ([], None, None)
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
        assert "check with dmesg whether its disk is read-only or failing; meanwhile no run is" in (
            journal.problem or ""
        )
        assert lines.events("error") == ["cannot use the journal"]
        journal.try_writing()
        journal.try_writing()
        assert (journal.problem, lines.events("info")) == (None, ["the journal works again"])
