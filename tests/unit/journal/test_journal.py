"""journal.py: what was saved is there after reopening, what cannot be saved is a JournalError."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from runnerd.core.machine import Phase, RunRecord
from runnerd.core.prefect import Inspection
from runnerd.core.settings import ApiSettings, Config, Settings
from runnerd.journal.journal import Journal, Registration
from tests.kits.journal import events, steps
from tests.kits.nouns import NOON, LogLines, a_deployment, a_record, log_to

INSPECTION = Inspection(
    flow_name="etl", description="d", parameter_schema={"type": "object"}, prefect_version="3.8.8", file=None
)


def open_at(folder: Path) -> Journal:
    return Journal(path=str(folder / "journal.db"), now=lambda: NOON, log=log_to(LogLines()))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = open_at(tmp_path)
    yield made
    made.close()


def reopened(folder: Path, journal: Journal) -> Journal:
    """A second look at the file; the first stays open and is closed by its fixture."""
    return open_at(folder)


def ids(records: list[RunRecord]) -> list[str]:
    return [record.id for record in records]


def aged(run_id: str, days: float, *, phase: Phase = Phase.DONE) -> RunRecord:
    return a_record(run_id, phase=phase, created_at=NOON - timedelta(days=days))


# --- runs -----------------------------------------------------------------------------------------------------


def test_every_save_survives_reopening(tmp_path: Path, journal: Journal) -> None:
    taken = [(Phase.CLAIMING, "claiming"), (Phase.STARTING, "claim won"), (Phase.DONE, "told")]
    for phase, event in taken:
        record = a_record("r-1", phase=phase, words=event)
        journal.save(record, event)
        other = reopened(tmp_path, journal)
        assert other.run("r-1") == record
        assert steps(other, "r-1") == taken[: taken.index((phase, event)) + 1]
        other.close()


def test_unfinished_runs_oldest_first(journal: Journal) -> None:
    for record in (aged("new", 1, phase=Phase.RUNNING), aged("old", 3, phase=Phase.CLAIMING), aged("over", 2)):
        journal.save(record, "x")
    assert ids(journal.unfinished()) == ["old", "new"]
    assert ids(journal.history()) == ["new", "over", "old"]
    assert ids(journal.history(limit=1)) == ["new"]
    assert journal.run("nobody") is None


def test_a_lost_claim_leaves_nothing(journal: Journal) -> None:
    journal.save(a_record("r-1"), "claiming")
    journal.withdraw_claim("r-1", None)
    assert journal.run("r-1") is None
    assert steps(journal, "r-1") == []
    journal.withdraw_claim("r-1", None)


def test_a_lost_claim_gives_the_earlier_record_back(journal: Journal) -> None:
    before = a_record("r-1", phase=Phase.DONE, attempt=1, words="exited 0")
    journal.save(before, "told")
    journal.save(a_record("r-1", attempt=2), "claiming")
    journal.withdraw_claim("r-1", before)
    assert journal.run("r-1") == before
    assert events(journal, "r-1") == ["told", "claiming", "claimed elsewhere"]


def test_withdrawing_is_all_or_nothing(journal: Journal) -> None:
    """Between the two a power cut would forget a run that this host has had."""
    journal.save(a_record("r-1", attempt=2), "claiming")
    unwritable = a_record("r-1", tags=(object(),))
    with pytest.raises(TypeError):
        journal.withdraw_claim("r-1", unwritable)
    assert journal.run("r-1") == a_record("r-1", attempt=2)


def test_find_by_id_prefix_and_name(journal: Journal) -> None:
    first, second = "aaaa1111-0000", "aaaa2222-0000"
    journal.save(a_record(first, name="brave-fox", created_at=NOON), "x")
    journal.save(a_record(second, name="brave-fox", created_at=NOON + timedelta(hours=1)), "x")
    assert ids(journal.find("aaaa1")) == [first]
    assert ids(journal.find(first)) == [first]
    assert ids(journal.find("aaaa")) == [second, first]
    assert ids(journal.find("brave-fox")) == [second, first]
    assert journal.find("brave") == []
    journal.save(a_record("bbbb", name="aaaa1"), "x")
    assert ids(journal.find("aaaa1")) == [first, "bbbb"], "which of them is meant is for others to say"


@pytest.mark.parametrize("name", ["50%", "a_b", "back\\slash", "o'brien", 'say "hi"', "; DROP TABLE runs", "ünï", "*"])
def test_names_with_odd_characters(journal: Journal, name: str) -> None:
    journal.save(a_record("r-1", name=name), "x")
    journal.save(a_record("r-2", name="500"), "x")
    journal.save(a_record("r-3", name="axb"), "x")
    assert ids(journal.find(name)) == ["r-1"]


@pytest.mark.parametrize("ref", ["%", "_", "r%", "r_1", "\\", "r-1\\", "r" * 60_000, "%" * 400, "\ud800", "r\0"])
def test_a_reference_is_no_pattern(journal: Journal, ref: str) -> None:
    journal.save(a_record("r-1"), "x")
    assert journal.find(ref) == []
    assert journal.problem is None


# --- forgetting -------------------------------------------------------------------------------------------------


def test_prune_by_age(journal: Journal) -> None:
    for record in (aged("old", 31), aged("new", 29), aged("old-but-live", 99, phase=Phase.REPORTING)):
        journal.save(record, "x")
    journal.save(aged("older", 32), "x")
    month = NOON - timedelta(days=30)
    assert ids(journal.prunable(before=month, max_runs=100, limit=1)) == ["older"]
    found = ids(journal.prunable(before=month, max_runs=100, limit=9))
    assert found == ["older", "old"]
    journal.forget(found)
    assert ids(journal.history()) == ["new", "old-but-live"]
    assert steps(journal, "old") == []
    assert journal.prunable(before=month, max_runs=100, limit=9) == []


def test_prune_by_count_spares_the_newest_and_the_live(journal: Journal) -> None:
    for n in range(5):
        journal.save(aged(f"done-{n}", n), "x")
    journal.save(aged("live", 50, phase=Phase.RUNNING), "x")
    gone = journal.prunable(before=NOON - timedelta(days=999), max_runs=2, limit=9)
    assert ids(gone) == ["done-4", "done-3", "done-2"]


# --- rows of other versions --------------------------------------------------------------------------------------


def edit_record(folder: Path, run_id: str, change: Callable[[dict[str, object]], None]) -> None:
    with sqlite3.connect(folder / "journal.db") as db:
        (text,) = db.execute("SELECT record FROM runs WHERE id = ?", (run_id,)).fetchone()
        document = json.loads(text)
        change(document)
        db.execute("UPDATE runs SET record = ? WHERE id = ?", (json.dumps(document), run_id))
    db.close()


def test_a_row_with_unknown_and_missing_keys_loads(tmp_path: Path, journal: Journal) -> None:
    journal.save(a_record("r-1", phase=Phase.RUNNING), "x")

    def change(document: dict[str, object]) -> None:
        document["from the future"] = {"a": [1]}
        for name in ("respawned", "start", "tags", "api_state_name"):
            del document[name]

    edit_record(tmp_path, "r-1", change)
    assert journal.unfinished() == [a_record("r-1", phase=Phase.RUNNING)]


# --- registrations, inspections, the last good configuration -----------------------------------------------------


def registration(name: str, **changes: object) -> Registration:
    given: dict[str, object] = {
        "url": "u",
        "flow": "etl",
        "name": name,
        "deployment_id": f"id-{name}",
        "fingerprint": "p",
        "major": 3,
        "deployment": a_deployment(name),
        **changes,
    }
    return Registration(**given)  # type: ignore[arg-type]


def test_registrations_of_one_server(tmp_path: Path, journal: Journal) -> None:
    for one in (registration("a"), registration("b"), registration("a", url="elsewhere")):
        journal.save_registration(one)
    assert journal.registrations("u") == [registration("a"), registration("b")]
    changed = registration("a", fingerprint="q", paused=True)
    journal.save_registration(changed)
    other = reopened(tmp_path, journal)
    assert other.registrations("u") == [registration("b"), changed], "what was saved last comes last"
    other.drop_registration(changed)
    assert journal.registrations("u") == [registration("b")]
    assert journal.registrations("elsewhere") == [registration("a", url="elsewhere")]
    other.close()


def test_inspections(tmp_path: Path) -> None:
    clock = [NOON - timedelta(days=100)]
    journal = Journal(path=str(tmp_path / "j"), now=lambda: clock[0], log=log_to(LogLines()))
    journal.save_inspections({"old": INSPECTION, "asked again": INSPECTION})
    clock[0] = NOON
    journal.save_inspections({"asked again": INSPECTION, "new": INSPECTION})
    journal.save_inspections({})
    keys = ("old", "asked again", "new", "never made")
    assert [journal.inspection(key) for key in keys] == [INSPECTION, INSPECTION, INSPECTION, None]
    journal.prune_memories(before=NOON - timedelta(days=90))
    assert [journal.inspection(key) for key in keys] == [None, INSPECTION, INSPECTION, None]
    journal.close()


def test_the_last_good_configuration(tmp_path: Path, journal: Journal) -> None:
    config = Config(settings=Settings(name="h", api=ApiSettings(url="u")), deployments=(a_deployment(),))
    assert journal.last_good() is None
    journal.save_last_good(config)
    other = reopened(tmp_path, journal)
    assert other.last_good() == config
    other.close()


@pytest.mark.parametrize("value", ["not json", "{}", "[]", '{"settings": 5}', '{"settings": {"name": "h"}}'])
def test_a_last_good_configuration_of_another_version_is_none(tmp_path: Path, journal: Journal, value: str) -> None:
    journal.save_last_good(Config(settings=Settings(name="h", api=ApiSettings(url="u"))))
    with sqlite3.connect(tmp_path / "journal.db") as db:
        db.execute("UPDATE notes SET value = ?", (value,))
    db.close()
    assert journal.last_good() is None
