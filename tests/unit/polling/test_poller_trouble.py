"""poller.py by a clock that jumps: outages, runs that are to be cancelled, and the watchdog."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from runnerd.core.errors import ApiAway, JournalError
from runnerd.core.machine import RunRecord
from runnerd.core.settings import LateSettings
from runnerd.journal.journal import Journal
from tests.kits.engine import at, polling, polls, started_at
from tests.kits.nouns import NOON, Json, LogLines, copied, log_to

# --- the API is away --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", [{"status": 503}, {"status": 401}, {"status": 404}, {"status": 422}, {}])
async def test_an_outage_and_its_end(tmp_path: Path, trouble: dict[str, int]) -> None:
    async with polling(tmp_path) as (engine, _):
        deployment_id = engine.deploy()
        engine.prefect.trouble("", times=10**9, **trouble)
        await asyncio.sleep(600)
        asked = len(copied(engine.prefect))
        assert 50 < asked < 400, "it goes on asking, with care"
        engine.prefect.troubles.clear()
        run_id = engine.add_run(deployment_id)
        began = at(engine)
        assert await started_at(engine, run_id) - began < 20.0


async def test_what_was_on_offer_when_the_outage_began(tmp_path: Path) -> None:
    """A claim needs the API, so it waits in `claiming`, and nothing of it is lost."""
    async with polling(tmp_path, poll_interval_s=600.0) as (engine, _):
        run_id = engine.add_run(engine.deploy(), in_s=300.0)
        engine.wakes.poll_now()
        await asyncio.sleep(15)
        engine.prefect.down = True
        await asyncio.sleep(600)
        assert engine.phase(run_id) == "claiming"
        engine.prefect.down = False
        await started_at(engine, run_id)


async def test_a_server_that_is_too_old(tmp_path: Path) -> None:
    async with polling(tmp_path) as (engine, _):
        run_id = engine.add_run(engine.deploy())
        engine.prefect.trouble("/admin/version", status=200, body="2.13.0", times=10**9)
        await asyncio.sleep(100)
        assert "too old" in (engine.poller.unsupported or "")
        assert polls(engine) == 0
        engine.prefect.troubles.clear()
        engine.prefect.trouble("GET /flow_runs", status=503)
        with pytest.raises(ApiAway):
            await engine.api.read_run(run_id)
        await started_at(engine, run_id)
        assert engine.poller.unsupported is None


# --- cancelling -------------------------------------------------------------------------------------------------


async def test_cancelling_our_own_runs(tmp_path: Path) -> None:
    async with polling(tmp_path, watching=True) as (engine, spawner):
        deployment_id = engine.deploy()
        ids = [engine.add_run(deployment_id) for _ in range(2)]
        for run_id in ids:
            await started_at(engine, run_id)
            engine.prefect.set_state(run_id, "RUNNING")
        began = at(engine)
        engine.prefect.set_state(ids[0], "CANCELLING")
        await engine.until_done(ids[0])
        assert at(engine) - began < 5.3
        assert engine.prefect.state_of(ids[0]) == "CANCELLED"
        assert spawner.live() == [ids[1]]


async def test_cancelled_while_its_process_lives_counts_when_it_stays_so(tmp_path: Path) -> None:
    """A child that was told the intent says CANCELLED itself just before it exits."""
    async with polling(tmp_path, watching=True) as (engine, spawner):
        run_id = engine.add_run(engine.deploy())
        await started_at(engine, run_id)
        engine.prefect.set_state(run_id, "CANCELLED")
        began = at(engine)
        await engine.until(lambda: spawner.stops)
        assert 4.9 < at(engine) - began < 10.3, "it was given one interval"
        await engine.until_done(run_id)
        assert engine.prefect.history[run_id] == ["Scheduled", "Pending", "Cancelled"]


async def test_looking_for_cancelling_survives_an_outage(tmp_path: Path) -> None:
    async with polling(tmp_path, watching=True) as (engine, _):
        run_id = engine.add_run(engine.deploy())
        await started_at(engine, run_id)
        engine.prefect.set_state(run_id, "RUNNING")
        engine.prefect.down = True
        await asyncio.sleep(600)
        engine.prefect.set_state(run_id, "CANCELLING")
        engine.prefect.down = False
        began = at(engine)
        await engine.until_done(run_id)
        assert at(engine) - began < 15.0


async def test_a_failed_look_for_cancelling_is_repeated_soon_also_while_events_arrive(tmp_path: Path) -> None:
    async with polling(tmp_path, watching=True, poll_interval_s=600.0) as (engine, _):
        run_id = engine.add_run(engine.deploy())
        engine.wakes.poll_now()
        await started_at(engine, run_id)
        engine.prefect.set_state(run_id, "RUNNING")
        engine.pace.woken = True
        await asyncio.sleep(60)
        engine.prefect.trouble("POST /flow_runs/filter", status=503)
        await engine.until(lambda: engine.prefect.troubles[0].seen)
        engine.prefect.set_state(run_id, "CANCELLING")
        began = at(engine)
        await engine.until_done(run_id)
        assert at(engine) - began < 11.0, "an interval of 5 s, not the 30 s while events tell of cancels"


# --- the watchdog -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("down", [False, True])
async def test_loops_that_wait_are_not_stuck(tmp_path: Path, down: bool) -> None:
    async with polling(tmp_path, watching=True, poll_interval_s=600.0) as (engine, _):
        engine.deploy()
        engine.add_run(engine.deploy("other"))
        engine.prefect.down = down
        for _ in range(360):
            await asyncio.sleep(10)
            assert engine.pulse.stuck() == ()


async def test_when_it_was_last_polled_with_success(tmp_path: Path) -> None:
    async with polling(tmp_path) as (engine, _):
        engine.deploy()
        engine.prefect.down = True
        await asyncio.sleep(100)
        assert engine.poller.polled_at is None
        engine.prefect.down = False
        await asyncio.sleep(100)
        assert engine.poller.polled_at is not None
        assert engine.now() - engine.poller.polled_at < timedelta(seconds=11)


# --- trouble with one run -------------------------------------------------------------------------------------------


async def test_a_late_run_that_cannot_be_let_go_holds_up_nobody(tmp_path: Path) -> None:
    late = LateSettings(after_s=600.0, policy="skip")
    async with polling(tmp_path, late=late) as (engine, _):
        deployment_id = engine.deploy()
        stuck = engine.add_run(deployment_id, in_s=-9000.0)
        engine.prefect.trouble(f"{stuck}/set_state", status=409, times=10**9)
        other = engine.add_run(deployment_id)
        await started_at(engine, other)
        assert engine.prefect.state_of(stuck) == "SCHEDULED"
        assert engine.phase(stuck) is None
        engine.prefect.troubles.clear()
        await engine.until(lambda: engine.prefect.state_of(stuck) == "CANCELLED")


async def test_a_cancel_that_cannot_be_recorded_is_asked_for_again(tmp_path: Path) -> None:
    journal = FullJournal(path=str(tmp_path / "journal.db"), now=lambda: NOON, log=log_to(LogLines()))
    async with polling(tmp_path, watching=True, journal=journal) as (engine, spawner):
        run_id = engine.add_run(engine.deploy())
        await started_at(engine, run_id)
        engine.prefect.set_state(run_id, "RUNNING")
        journal.full = True
        engine.prefect.set_state(run_id, "CANCELLING")
        await asyncio.sleep(600)
        engine.supervisor.evict_all(now=True)
        assert (engine.phase(run_id), spawner.stops) == ("running", [])
        assert "cannot record that a run is to be ended" in engine.lines.events("error")
        journal.full = False
        record = await engine.until_done(run_id)
        assert (record.intent, engine.prefect.state_of(run_id)) == ("cancel", "CANCELLED")


class FullJournal(Journal):
    """A journal on a disk that is full for a while."""

    full = False

    def save(self, record: RunRecord, event: str, **more: Json) -> None:
        if self.full:
            raise JournalError("cannot write the journal: database or disk is full")
        super().save(record, event, **more)
