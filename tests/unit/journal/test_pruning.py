"""pruning.py: old runs go with their output, and a journal that cannot be written is tried again."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from runnerd.config.in_force import ConfigInForce
from runnerd.core.errors import JournalError
from runnerd.core.machine import Phase
from runnerd.core.settings import Config, JournalSettings
from runnerd.core.wakes import Wakes
from runnerd.journal.journal import Journal
from runnerd.journal.journal_file import _SCHEMA, make_shrinkable
from runnerd.journal.pruning import PRUNE_EVERY_S, prune_history, prune_periodically, recover_journal
from tests.kits.engine_parts import NotedEvent
from tests.kits.nouns import NOON, LogLines, a_record, log_to, settings

MIB = 2**20


async def test_old_runs_go_with_the_output_of_every_attempt(tmp_path: Path) -> None:
    journal = Journal(path=str(tmp_path / "journal.db"), now=lambda: NOON, log=log_to(LogLines()))
    outputs = [tmp_path / f"old.{attempt}.log" for attempt in (1, 2, 3)]
    kept = tmp_path / "new.1.log"
    for path in (outputs[0], outputs[2], kept):
        path.touch()
    old = a_record("old", phase=Phase.DONE, attempt=3, output=str(outputs[2]), created_at=NOON - timedelta(days=40))
    journal.save(old, "told")
    journal.save(replace(old, id="silent", output=None), "told")
    before = tmp_path / "unstarted.1.log"  # and its second attempt never started
    before.touch()
    journal.save(replace(old, id="unstarted", attempt=2, output=str(before)), "told")
    journal.save(a_record("new", phase=Phase.DONE, output=str(kept)), "told")
    await prune_history(journal=journal, settings=JournalSettings(), now=NOON, log=log_to(LogLines()))
    assert [record.id for record in journal.history()] == ["new"]
    assert sorted(path.name for path in tmp_path.glob("*.log")) == ["new.1.log"]
    journal.close()


async def test_many_runs_are_forgotten_in_slices(tmp_path: Path) -> None:
    """Other tasks run between the slices, so deleting ten thousand runs does not block the event loop."""
    journal = CountingJournal(path=str(tmp_path / "journal.db"), now=lambda: NOON, log=log_to(LogLines()))
    for number in range(450):
        journal.save(a_record(str(number), phase=Phase.DONE, created_at=NOON - timedelta(days=40)), "told")
    counting = asyncio.create_task(journal.count_turns())
    await prune_history(journal=journal, settings=JournalSettings(), now=NOON, log=log_to(LogLines()))
    counting.cancel()
    assert journal.history() == []
    assert len(set(journal.forgetting)) == 5
    journal.close()


class CountingJournal(Journal):
    """Notes at which of the loop's turns it forgets."""

    turns = 0
    forgetting: tuple[int, ...] = ()

    async def count_turns(self) -> None:
        while True:
            self.turns += 1
            await asyncio.sleep(0)

    def forget(self, run_ids: Iterable[str]) -> None:
        self.forgetting += (self.turns,)
        super().forget(run_ids)


async def test_output_that_cannot_be_removed_keeps_its_run_and_no_other(tmp_path: Path) -> None:
    journal, lines = Journal(path=str(tmp_path / "journal.db"), now=lambda: NOON, log=log_to(LogLines())), LogLines()
    stuck = tmp_path / "stuck.1.log"
    stuck.mkdir()
    for name in ("stuck", "free", "liberty"):
        output = tmp_path / f"{name}.1.log"
        journal.save(a_record(name, phase=Phase.DONE, output=str(output), created_at=NOON - timedelta(days=40)), "told")
    await prune_history(journal=journal, settings=JournalSettings(), now=NOON, log=log_to(lines))
    assert [record.id for record in journal.history()] == ["stuck"]
    (line,) = lines.all()
    assert (line["event"], line["runs"]) == ("cannot remove the output of old runs", 1)
    assert str(stuck) in line["why"]
    stuck.rmdir()
    await prune_history(journal=journal, settings=JournalSettings(), now=NOON, log=log_to(lines))
    assert journal.history() == []
    journal.close()


async def test_output_that_stays_stuck_is_logged_once(tmp_path: Path) -> None:
    journal, lines = Journal(path=str(tmp_path / "journal.db"), now=lambda: NOON, log=log_to(LogLines())), LogLines()
    (tmp_path / "stuck.1.log").mkdir()
    output = str(tmp_path / "stuck.1.log")
    journal.save(a_record("stuck", phase=Phase.DONE, output=output, created_at=NOON - timedelta(days=40)), "told")
    config = ConfigInForce(Config(settings=settings()))
    pruning = asyncio.create_task(
        prune_periodically(journal=journal, config=config, now=lambda: NOON, log=log_to(lines))
    )
    await asyncio.sleep(10 * PRUNE_EVERY_S)
    assert lines.events("warning") == ["cannot remove the output of old runs"]
    pruning.cancel()
    await asyncio.wait([pruning])
    journal.close()


async def test_runs_beyond_max_runs_go_within_a_minute_and_their_room_with_them(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = Journal(path=str(path), now=lambda: NOON, log=log_to(LogLines()))
    config = ConfigInForce(Config(settings=replace(settings(), journal=JournalSettings(max_runs=5))))
    pruning = asyncio.create_task(
        prune_periodically(journal=journal, config=config, now=lambda: NOON, log=log_to(LogLines()))
    )
    await asyncio.sleep(1)
    fill(journal, runs=600)
    big = size_on_disk(path)
    await asyncio.sleep(PRUNE_EVERY_S)
    pruning.cancel()
    await asyncio.wait([pruning])
    assert [record.id for record in journal.history()] == [f"{number:03d}" for number in range(599, 594, -1)]
    journal.close()
    assert big > 6 * MIB
    assert size_on_disk(path) < 2 * MIB


async def test_the_journal_of_an_earlier_runnerd_gives_room_back_too(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    db = sqlite3.connect(path)
    db.executescript(f"PRAGMA journal_mode = WAL; {_SCHEMA}")
    assert db.execute("PRAGMA auto_vacuum").fetchone() == (0,)
    db.close()
    journal = Journal(path=str(path), now=lambda: NOON, log=log_to(LogLines()))
    fill(journal, runs=600)
    await prune_history(journal=journal, settings=JournalSettings(max_runs=5), now=NOON, log=log_to(LogLines()))
    assert len(journal.history()) == 5
    journal.close()
    assert size_on_disk(path) < 2 * MIB


def test_an_earlier_journal_on_a_disk_that_is_nearly_full_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    db = sqlite3.connect(path)
    db.executescript(f"PRAGMA journal_mode = WAL; {_SCHEMA}")
    full = os.statvfs_result((4096, 4096, 9999, 1, 1, 99, 99, 99, 0, 255))
    make_shrinkable(db, str(path), statvfs=lambda _directory: full)
    assert db.execute("PRAGMA auto_vacuum").fetchone() == (0,)
    make_shrinkable(db, str(path))
    assert db.execute("PRAGMA auto_vacuum").fetchone() == (2,)
    db.close()


def test_the_temporary_files_of_a_conversion_are_beside_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQLITE_TMPDIR", "/elsewhere")
    db = sqlite3.connect(tmp_path / "journal.db")
    db.executescript(f"PRAGMA journal_mode = WAL; {_SCHEMA}")
    db.close()
    Journal(path=str(tmp_path / "journal.db"), now=lambda: NOON, log=log_to(LogLines())).close()
    assert os.environ["SQLITE_TMPDIR"] == "/elsewhere"


def test_room_that_cannot_be_given_back_is_a_problem_of_the_journal(tmp_path: Path) -> None:
    journal = Journal(path=str(tmp_path / "journal.db"), now=lambda: NOON, log=log_to(LogLines()))
    journal.close()
    with pytest.raises(JournalError):
        journal.return_space(1)


def fill(journal: Journal, *, runs: int) -> None:
    """Save runs with 10 kB of labels each, the later ones younger."""
    for number in range(runs):
        at = NOON + timedelta(seconds=number)
        journal.save(a_record(f"{number:03d}", phase=Phase.DONE, created_at=at, labels={"big": "x" * 10_000}), "told")


def size_on_disk(path: Path) -> int:
    return sum(each.stat().st_size for each in path.parent.glob(f"{path.name}*"))


async def test_a_journal_that_cannot_forget_ends_no_loop(tmp_path: Path) -> None:
    journal, lines = Journal(path=str(tmp_path / "journal.db"), now=lambda: NOON, log=log_to(LogLines())), LogLines()
    journal.save(a_record("old", phase=Phase.DONE, created_at=NOON - timedelta(days=40)), "told")
    journal.close()
    await prune_history(journal=journal, settings=JournalSettings(), now=NOON, log=log_to(lines))
    assert lines.events("warning") == ["cannot delete old runs from the journal"]


async def test_the_journal_heals_by_itself(tmp_path: Path) -> None:
    journal = HealingJournal(path=str(tmp_path / "journal.db"), now=lambda: NOON, log=log_to(LogLines()))
    healed: list[int] = []
    wakes = Wakes(offer=NotedEvent(lambda: healed.append(journal.tries)))
    keeping = asyncio.create_task(recover_journal(journal=journal, wakes=wakes))
    await asyncio.sleep(60)
    assert journal.tries == 0, "nothing is written while nothing is wrong"
    journal.problem = "the disk is full"
    await asyncio.sleep(600)
    assert (journal.tries, healed, journal.problem) == (3, [3], None)
    keeping.cancel()
    await asyncio.wait([keeping])
    journal.close()


class HealingJournal(Journal):
    """On a disk that has room again at the third try."""

    tries = 0

    def try_writing(self) -> None:
        self.tries += 1
        if self.tries < 3:
            raise JournalError("the disk is full")
        super().try_writing()
