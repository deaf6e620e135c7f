"""Notices in the journal: written with the end of their run or not at all, and each once."""

from __future__ import annotations

import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest

from runnerd.core.errors import JournalError
from runnerd.core.machine import Phase
from tests.kits.journal import opened
from tests.kits.notices import a_notice, a_target
from tests.kits.nouns import NOON, a_record


def test_they_come_back_as_they_were(tmp_path: Path) -> None:
    notice = a_notice(target=a_target(post=None, command=("a", "b"), timeout_s=3.0), tries=2, begun=True, user="etl")
    with opened(tmp_path / "journal.db") as journal:
        journal.save(a_record("r-1", phase=Phase.DONE), "told", notices=[notice])
    with opened(tmp_path / "journal.db") as journal:
        assert journal.notices.pending() == [notice]


def test_an_end_that_cannot_be_written_leaves_no_notice(tmp_path: Path) -> None:
    with opened(tmp_path / "journal.db") as journal:
        journal._db.execute("CREATE TRIGGER full BEFORE INSERT ON notices BEGIN SELECT RAISE(ABORT, 'no room'); END")
        with pytest.raises(JournalError):
            journal.save(a_record("r-1", phase=Phase.DONE), "told", notices=[a_notice()])
        assert journal.run("r-1") is None, "nor is the run done without its notices"
        assert journal.notices.pending() == []


def test_one_that_was_made_before_stays_as_it_is(tmp_path: Path) -> None:
    with opened(tmp_path / "journal.db") as journal:
        journal.notices.add([a_notice("a")])
        journal.notices.save(a_notice("a", tries=3))
        journal.notices.add([a_notice("a"), a_notice("b")])
        assert [(one.id, one.tries) for one in journal.notices.pending()] == [("a", 3), ("b", 0)]
        journal.notices.finish("a")
        journal.notices.add([a_notice("a")])
        assert [one.id for one in journal.notices.pending()] == ["b"]
        assert journal.notices.has(["a", "b", "c"]) == {"a", "b"}


def test_what_is_finished_is_forgotten_by_age_and_number(tmp_path: Path) -> None:
    with opened(tmp_path / "journal.db") as journal:
        names = [f"n-{number}" for number in range(6)]
        journal.notices.add(a_notice(name, at=NOON + timedelta(hours=number)) for number, name in enumerate(names))
        for name in names[:5]:
            journal.notices.finish(name)
        journal.notices.prune(before=NOON + timedelta(hours=2), most=2)
        assert journal.notices.has(names) == set(names[3:])


def test_one_that_cannot_be_read_is_moved_and_hides_no_other(tmp_path: Path) -> None:
    with opened(tmp_path / "journal.db") as journal:
        journal.notices.add([a_notice("a"), a_notice("b")])
        journal._db.execute("UPDATE notices SET record = 'x' WHERE id = 'a'")
        assert [one.id for one in journal.notices.pending()] == ["b"]


def test_a_journal_of_an_older_runnerd_gets_the_table(tmp_path: Path) -> None:
    with opened(tmp_path / "journal.db"):
        pass
    db = sqlite3.connect(tmp_path / "journal.db")
    db.execute("DROP TABLE notices")
    db.close()
    with opened(tmp_path / "journal.db") as journal:
        journal.notices.add([a_notice()])
        assert len(journal.notices.pending()) == 1
