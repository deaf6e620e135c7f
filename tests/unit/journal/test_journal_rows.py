"""journal.py: rows that cannot be read."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from runnerd.core.settings import ApiSettings, Config, Settings
from tests.kits.journal import LIVE, ids, opened, running
from tests.kits.nouns import NOON, LogLines
from tests.unit.journal.test_journal import INSPECTION, registration

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
        assert (journal.inspection("a"), journal.inspection("b")) == (None, INSPECTION)
        assert journal.last_good() is None
    rows = [line["row"] for line in lines.all()]
    assert rows == ["registrations etl/a", "inspections a", "notes last good configuration"]
