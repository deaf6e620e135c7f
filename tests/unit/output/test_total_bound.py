"""total_bound.py: the output of all runs together stays within output.max_total, and runs under way keep theirs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from runnerd.config.in_force import ConfigInForce
from runnerd.core.machine import Phase, RunRecord
from runnerd.core.settings import UNBOUNDED_BYTES, Config, OutputSettings
from runnerd.journal.journal import Journal
from runnerd.output.total_bound import CHECK_EVERY_S, REMOVED, TotalBound
from tests.kits.nouns import NOON, LogLines, a_record, log_to, settings

BLOCK = 4096


@dataclass
class Host:
    """A folder with outputs of one block per attempt, and a bound of three blocks."""

    folder: Path
    journal: Journal
    live: list[RunRecord] = field(default_factory=list)
    lines: LogLines = field(default_factory=LogLines)

    def __post_init__(self) -> None:
        self.config = ConfigInForce(Config(settings=settings()))
        self.bound_to(3 * BLOCK)
        self.total = TotalBound(
            folder=str(self.folder),
            config=self.config,
            records=lambda: self.live,
            journal=self.journal,
            log=log_to(self.lines),
        )

    def bound_to(self, max_bytes: int) -> None:
        self.config.current = Config(settings=replace(settings(), output=OutputSettings(max_total_bytes=max_bytes)))

    def add(self, run_id: str, *, age_s: int, attempts: int = 1, phase: Phase = Phase.DONE) -> None:
        for attempt in range(1, attempts + 1):
            path = self.folder / f"{run_id}.{attempt}.log"
            path.write_bytes(b"x" * BLOCK)
            os.utime(path, (NOON.timestamp() - age_s, NOON.timestamp() - age_s))
        record = a_record(run_id, phase=phase, attempt=attempts, output=str(path))
        self.journal.save(record, "told")
        if record.live:
            self.live.append(record)

    def left(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("*.log"))

    def removed(self) -> list[str]:
        return sorted(record.id for record in self.journal.history() if record.output_removed == REMOVED)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    folder = tmp_path / "runs"
    folder.mkdir()
    with closing(Journal(path=str(tmp_path / "journal.db"), now=lambda: NOON, log=log_to(LogLines()))) as journal:
        yield Host(folder, journal)


async def test_the_oldest_output_goes_first_with_every_attempt(host: Host) -> None:
    host.add("old", age_s=300, attempts=2)
    for name, age_s in (("b", 200), ("c", 100), ("d", 50)):
        host.add(name, age_s=age_s)
    await host.total.enforce()
    assert host.left() == ["b.1.log", "c.1.log", "d.1.log"]
    assert host.removed() == ["old"]
    (line,) = host.lines.all()
    assert (line["runs"], line["bytes"]) == (1, 2 * BLOCK)
    await host.total.enforce()
    assert len(host.lines.all()) == 1


async def test_a_run_under_way_keeps_its_output_whatever_its_age(host: Host) -> None:
    host.add("live", age_s=900, attempts=3, phase=Phase.RUNNING)
    host.add("reporting", age_s=800, phase=Phase.REPORTING)
    host.add("ended", age_s=1)
    await host.total.enforce()
    assert host.left() == ["live.1.log", "live.2.log", "live.3.log", "reporting.1.log"]
    assert host.removed() == ["ended"]


async def test_output_without_a_record_goes_too(host: Host) -> None:
    (host.folder / "stranger.1.log").write_bytes(b"x" * (8 * BLOCK))
    os.utime(host.folder / "stranger.1.log", (0, 0))
    (host.folder / "notes.txt").write_bytes(b"x" * (8 * BLOCK))
    host.add("new", age_s=1)
    await host.total.enforce()
    assert host.left() == ["new.1.log"]
    assert (host.folder / "notes.txt").exists()


async def test_a_hole_takes_no_room(host: Host) -> None:
    host.add("cut", age_s=100)
    with open(host.folder / "cut.1.log", "r+b") as file:
        file.truncate(2**30)
    host.add("new", age_s=1)
    await host.total.enforce()
    assert host.left() == ["cut.1.log", "new.1.log"]


async def test_infinity_removes_nothing(host: Host) -> None:
    host.bound_to(UNBOUNDED_BYTES)
    for number in range(9):
        host.add(f"run{number}", age_s=number)
    await host.total.enforce()
    assert len(host.left()) == 9


async def test_what_cannot_be_removed_is_logged_once_and_others_go(host: Host) -> None:
    for number in range(5):
        host.add(f"run{number}", age_s=500 - number)
    stuck = host.folder / "run0.2.log"
    stuck.mkdir()
    for path in (stuck, host.folder / "run0.1.log"):
        os.utime(path, (0, 0))
    for _ in range(3):
        await host.total.enforce()
    assert host.lines.events("warning") == ["cannot remove the output of old runs"]
    assert str(stuck) in host.lines.all()[0]["why"]
    assert "run1.1.log" not in host.left()
    assert "run4.1.log" in host.left()
    stuck.rmdir()
    stuck.write_bytes(b"x" * 4096)
    os.utime(stuck, (0, 0))
    for number in range(5, 8):
        host.add(f"run{number}", age_s=500 - number)
    await host.total.enforce()
    assert stuck.name not in host.left(), "it is tried again"


async def test_a_full_journal_does_not_keep_output_on_the_disk(host: Host) -> None:
    for number in range(5):
        host.add(f"run{number}", age_s=500 - number)
    host.journal.close()
    await host.total.enforce()
    assert host.left() == ["run2.1.log", "run3.1.log", "run4.1.log"]


async def test_the_bound_is_enforced_at_start_and_again(host: Host) -> None:
    for number in range(4):
        host.add(f"run{number}", age_s=500 - number)
    running = asyncio.create_task(host.total.run())
    await asyncio.sleep(1)
    assert host.left() == ["run1.1.log", "run2.1.log", "run3.1.log"]
    host.add("run4", age_s=1)
    await asyncio.sleep(CHECK_EVERY_S)
    assert host.left() == ["run2.1.log", "run3.1.log", "run4.1.log"]
    running.cancel()
    await asyncio.wait([running])
