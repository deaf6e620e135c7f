"""Loops of the daemon: one item that goes wrong in a way that nobody foresaw ends there, and the loop goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path

from runnerd.core.machine import RunRecord
from runnerd.journal.journal import Journal
from tests.kits.engine import polling, started_at
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.nouns import NOON, Json, LogLines, log_to


class OddJournal(Journal):
    """A journal that cannot take certain events of certain runs."""

    odd: frozenset[tuple[str, str]] = frozenset()  # the run's name and the event

    def save(self, record: RunRecord, event: str, **more: Json) -> None:
        if (record.name, event) in self.odd:
            raise OverflowError("Python int too large to convert to SQLite INTEGER")
        super().save(record, event, **more)


def a_journal(folder: Path, *odd: tuple[str, str]) -> OddJournal:
    journal = OddJournal(path=str(folder / "journal.db"), now=lambda: NOON, log=log_to(LogLines()))
    journal.odd = frozenset(odd)
    return journal


async def test_a_run_that_cannot_be_claimed_keeps_no_other_from_starting(tmp_path: Path) -> None:
    async with polling(tmp_path, journal=a_journal(tmp_path, ("odd", "claiming"))) as (engine, _):
        deployment_id = engine.deploy()
        odd = engine.add_run(deployment_id, name="odd", in_s=-30.0)
        await started_at(engine, engine.add_run(deployment_id))
        await asyncio.sleep(3600)
        assert engine.phase(odd) is None
        await started_at(engine, engine.add_run(deployment_id))
        faults = [line for line in engine.lines.all() if line["level"] == "error"]
        assert [(line["loop"], line["item"]) for line in faults] == [("claims", f"run {odd}")]


async def test_a_surplus_run_that_cannot_be_recorded_keeps_no_other_from_its_end(tmp_path: Path) -> None:
    journal, prefect = a_journal(tmp_path, ("odd", "claiming")), FakePrefect(major=2)  # 3 cancels them itself
    async with polling(tmp_path, journal=journal, prefect=prefect) as (engine, _):
        deployment_id = engine.deploy(concurrency_limit=1, collision_strategy="CANCEL_NEW")
        await started_at(engine, engine.add_run(deployment_id))
        odd = engine.add_run(deployment_id, name="odd", in_s=-30.0)
        surplus = engine.add_run(deployment_id)
        await engine.until(lambda: engine.prefect.state_of(surplus) == "CANCELLED")
        await started_at(engine, engine.add_run(engine.deploy("other")))
        assert engine.prefect.state_of(odd) == "SCHEDULED"
        faults = [line for line in engine.lines.all() if line["level"] == "error"]
        assert [(line["loop"], line["item"]) for line in faults] == [("claims", f"run {odd}")]


async def test_a_run_that_cannot_be_stopped_keeps_no_other_from_being_stopped(tmp_path: Path) -> None:
    async with polling(tmp_path, journal=a_journal(tmp_path, ("odd", "evict asked"))) as (engine, spawner):
        deployment_id = engine.deploy()
        odd, other = (engine.add_run(deployment_id, name=name) for name in ("odd", "other"))
        for run_id in (odd, other):
            await started_at(engine, run_id)
        engine.supervisor.evict_all()
        assert (await engine.until_done(other)).intent == "evict"
        assert spawner.live() == [odd]


async def test_a_run_that_cannot_be_cancelled_keeps_no_other_from_being_cancelled(tmp_path: Path) -> None:
    journal = a_journal(tmp_path, ("odd", "cancel asked"))
    async with polling(tmp_path, watching=True, journal=journal) as (engine, spawner):
        deployment_id = engine.deploy()
        odd, other = (engine.add_run(deployment_id, name=name) for name in ("odd", "other"))
        for run_id in (odd, other):
            await started_at(engine, run_id)
            engine.prefect.set_state(run_id, "RUNNING")
            engine.prefect.set_state(run_id, "CANCELLING")
        assert (await engine.until_done(other)).intent == "cancel"
        await asyncio.sleep(600)
        assert spawner.live() == [odd]
        faults = [line for line in engine.lines.all() if line["level"] == "error"]
        assert [line["item"] for line in faults] == [f"run {odd}"]
        journal.odd = frozenset()
        assert (await engine.until_done(odd)).intent == "cancel"
