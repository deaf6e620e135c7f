"""journal.py: what was saved is there after reopening, what cannot be saved is a JournalError."""

from __future__ import annotations

import json
import os
import resource
import sqlite3
import stat
import subprocess
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from nouns_kit import NOON, a_deployment, a_record

from runnerd.errors import JournalError
from runnerd.journal import Journal, Registration
from runnerd.machine import Phase, RunRecord
from runnerd.model import ApiSettings, Config, Inspection, Settings

INSPECTION = Inspection(
    flow_name="etl", description="d", parameter_schema={"type": "object"}, prefect_version="3.8.8", file=None
)


def open_at(folder: Path) -> Journal:
    return Journal(path=str(folder / "journal.db"), now=lambda: NOON)


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
    steps = [(Phase.CLAIMING, "claiming"), (Phase.STARTING, "claim won"), (Phase.DONE, "told")]
    for phase, event in steps:
        record = a_record("r-1", phase=phase, words=event)
        journal.save(record, event)
        other = reopened(tmp_path, journal)
        assert other.run("r-1") == record
        assert [(one.phase, one.event) for one in other.transitions("r-1")] == steps[: steps.index((phase, event)) + 1]
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
    journal.withdraw("r-1", None)
    assert journal.run("r-1") is None
    assert journal.transitions("r-1") == []
    journal.withdraw("r-1", None)


def test_a_lost_claim_gives_the_earlier_record_back(journal: Journal) -> None:
    before = a_record("r-1", phase=Phase.DONE, attempt=1, words="exited 0")
    journal.save(before, "told")
    journal.save(a_record("r-1", attempt=2), "claiming")
    journal.withdraw("r-1", before)
    assert journal.run("r-1") == before
    assert [one.event for one in journal.transitions("r-1")] == ["told", "claiming", "claimed elsewhere"]


def test_withdrawing_is_all_or_nothing(journal: Journal) -> None:
    """Between the two a power cut would forget a run that this host has had."""
    journal.save(a_record("r-1", attempt=2), "claiming")
    unwritable = a_record("r-1", tags=(object(),))
    with pytest.raises(TypeError):
        journal.withdraw("r-1", unwritable)
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


@pytest.mark.parametrize("ref", ["%", "_", "r%", "r_1", "\\", "r-1\\"])
def test_a_reference_is_no_pattern(journal: Journal, ref: str) -> None:
    journal.save(a_record("r-1"), "x")
    assert journal.find(ref) == []


# --- forgetting -------------------------------------------------------------------------------------------------


def test_prune_by_age(journal: Journal) -> None:
    for record in (aged("old", 31), aged("new", 29), aged("old-but-live", 99, phase=Phase.REPORTING)):
        journal.save(record, "x")
    assert ids(journal.prune(before=NOON - timedelta(days=30), max_runs=100)) == ["old"]
    assert ids(journal.history()) == ["new", "old-but-live"]
    assert journal.transitions("old") == []
    assert journal.prune(before=NOON - timedelta(days=30), max_runs=100) == []


def test_prune_by_count_spares_the_newest_and_the_live(journal: Journal) -> None:
    for n in range(5):
        journal.save(aged(f"done-{n}", n), "x")
    journal.save(aged("live", 50, phase=Phase.RUNNING), "x")
    gone = journal.prune(before=NOON - timedelta(days=999), max_runs=2)
    assert sorted(ids(gone)) == ["done-2", "done-3", "done-4"]
    assert ids(journal.history()) == ["done-0", "done-1", "live"]


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


# --- the file ----------------------------------------------------------------------------------------------------


def test_only_its_owner_may_read_it(tmp_path: Path, journal: Journal) -> None:
    assert stat.S_IMODE((tmp_path / "journal.db").stat().st_mode) == 0o600


@pytest.mark.parametrize("content", [b"this was never a database, but long enough to look at", b"\0" * 4096])
def test_a_file_that_is_no_database_is_moved_aside(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "journal.db").write_bytes(content)
    journal = open_at(tmp_path)
    aside = tmp_path / f"journal.db.corrupt-{NOON:%Y%m%dT%H%M%S}"
    assert journal.moved_aside == str(aside)
    assert aside.read_bytes() == content
    journal.save(a_record("r-1"), "x")
    journal.close()
    again = open_at(tmp_path)
    assert again.moved_aside is None
    assert ids(again.unfinished()) == ["r-1"]
    again.close()


def test_an_empty_file_is_a_new_journal(tmp_path: Path) -> None:
    (tmp_path / "journal.db").touch()
    journal = open_at(tmp_path)
    assert (journal.moved_aside, journal.unfinished()) == (None, [])
    journal.close()


def test_no_directory(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match=r"cannot open the journal .*missing/journal.db: unable to open"):
        open_at(tmp_path / "missing")


def test_a_closed_journal_says_so(tmp_path: Path) -> None:
    journal = open_at(tmp_path)
    journal.close()
    with pytest.raises(JournalError, match="cannot read the journal"):
        journal.unfinished()
    with pytest.raises(JournalError, match="cannot write the journal"):
        journal.save(a_record("r-1"), "x")


def in_child(work: Callable[[], str]) -> str:
    """What `work` returns in a forked child, which may bind itself to any limit."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        said = "it raised"
        try:
            said = work()
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        finally:
            os.write(writer, said.encode())
            os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8") as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return said


def test_a_directory_that_may_not_be_written(tmp_path: Path) -> None:
    closed = Path("/proc/self") if os.geteuid() == 0 else tmp_path
    if os.geteuid() != 0:
        tmp_path.chmod(0o500)
    with pytest.raises(JournalError, match="cannot open the journal"):
        open_at(closed)
    tmp_path.chmod(0o700)


def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    """As a disk quota or a full disk would have it; what was there before stays readable."""

    def work() -> str:
        journal = open_at(tmp_path)
        journal.save(a_record("first"), "x")
        size = max(path.stat().st_size for path in tmp_path.iterdir())
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 6000, hard))
        try:
            for n in range(100):
                journal.save(a_record(f"r-{n}", words="w" * 3000), "x")
        except JournalError as error:
            said = str(error)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        journal.save(a_record("last"), "x")
        found = ids(journal.unfinished())
        assert (found[0], found[-1]) == ("first", "last"), found
        return said

    assert in_child(work).startswith(f"cannot write the journal {tmp_path}/journal.db: ")


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or mount("-t", "tmpfs", "-o", "size=256k", "none", str(disk)) != 0:
        pytest.skip("mounting takes root")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def mount(*arguments: str) -> int:
    return subprocess.run(["mount", *arguments], stderr=subprocess.DEVNULL, check=False).returncode


def test_a_full_disk_and_room_again(tiny_disk: Path) -> None:
    journal = open_at(tiny_disk)
    saved = 0
    with pytest.raises(JournalError, match="disk is full"):
        for n in range(1000):
            journal.save(a_record(f"r-{n}", words="w" * 3000), "x")
            saved += 1
    with pytest.raises(JournalError, match="disk is full"):
        journal.withdraw("r-0", a_record("r-0", words="w" * 30000))
    assert len(journal.unfinished()) == saved
    assert mount("-o", "remount,size=8M", str(tiny_disk)) == 0
    journal.save(a_record("after"), "x")
    assert len(journal.unfinished()) == saved + 1
    journal.close()


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
    changed = registration("a", fingerprint="q", paused=True)
    journal.save_registration(changed)
    other = reopened(tmp_path, journal)
    assert sorted(other.registrations("u"), key=lambda one: one.name) == [changed, registration("b")]
    other.drop_registration(changed)
    assert journal.registrations("u") == [registration("b")]
    assert journal.registrations("elsewhere") == [registration("a", url="elsewhere")]
    other.close()


def test_inspections(tmp_path: Path) -> None:
    clock = [NOON - timedelta(days=100)]
    journal = Journal(path=str(tmp_path / "j"), now=lambda: clock[0])
    journal.save_inspections({"old": INSPECTION, "asked again": INSPECTION})
    clock[0] = NOON
    journal.save_inspections({"asked again": INSPECTION, "new": INSPECTION})
    journal.save_inspections({})
    assert journal.inspections() == dict.fromkeys(("old", "asked again", "new"), INSPECTION)
    journal.prune_inspections(before=NOON - timedelta(days=90))
    assert set(journal.inspections()) == {"asked again", "new"}
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
