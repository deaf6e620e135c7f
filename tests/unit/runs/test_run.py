"""run.py over several daemons and spawners: runs that one began and another ends."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from runnerd.core.machine import RunRecord
from runnerd.core.prefect import StateType
from runnerd.journal.journal import Journal
from tests.kits.engine import fake_engine, running, start
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.fakes.fake_spawner import FakeSpawner
from tests.kits.nouns import LogLines, a_record, log_to

# --- the spawner comes and goes ---------------------------------------------------------------------------------


async def test_a_spawner_that_is_away_is_waited_for(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        first = await start(engine)
        spawner.down = True
        spawner.lose()
        second = engine.add_run(engine.deploy("other"))
        assert engine.offer(second)
        await asyncio.sleep(300.0)
        assert (engine.phase(first), engine.phase(second)) == ("running", "starting")
        assert engine.link.problem == "cannot start the spawner: it is down"
        engine.prefect.set_state(first, "COMPLETED")
        spawner.exit(first)
        spawner.down = False
        await engine.until(lambda: running(engine, second))
        assert (await engine.until_done(first)).api_state is StateType.COMPLETED
        assert engine.link.problem is None
        assert engine.lines.events("error") == ["cannot reach the spawner"]


async def test_a_spawner_that_forgot_a_run(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = await start(engine)
        spawner.forget_all()
        spawner.lose()
        record = await engine.until_done(run_id)
        assert record.words == "ended, exit status unknown"
        assert engine.prefect.state_of(run_id) == "CRASHED"


# --- started again ----------------------------------------------------------------------------------------------


async def test_pending_and_nobody_saw_the_exit_is_started_again_once(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = engine.add_run(engine.deploy())
        engine.offer(run_id)
        for attempt in (1, 2):
            await engine.until(lambda at=attempt: len(spawner.runs_of(run_id)) == at)
            await engine.until(lambda: running(engine, run_id))
            spawner.exit(run_id, code=None)
        record = await engine.until_done(run_id)
        assert (record.attempt, record.respawned) == (2, True)
        assert engine.prefect.history[run_id] == ["Scheduled", "Pending", "Crashed"]
        assert spawner.records == {}, "of no attempt a record is left behind"


# --- adopting ---------------------------------------------------------------------------------------------------


async def test_detached_runs_live_and_are_adopted(tmp_path: Path) -> None:
    spawner, prefect = FakeSpawner(), FakePrefect(major=3)
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        run_id = await start(engine)
    assert spawner.live() == [run_id]
    assert spawner.stops == []
    prefect.set_state(run_id, "COMPLETED")
    spawner.exit(run_id)
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        engine.supervisor.adopt(engine.journal.unfinished())
        record = await engine.until_done(run_id)
        assert (record.api_state, record.words) == (StateType.COMPLETED, "exited 0")
        assert len(spawner.started) == 1


async def test_after_a_reboot(tmp_path: Path) -> None:
    spawner, prefect = FakeSpawner(), FakePrefect(major=3)
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        run_id = await start(engine)
    record = _last(tmp_path, run_id)
    assert record.identity is not None
    journal = Journal(path=str(tmp_path / "journal.db"), now=lambda: record.created_at, log=log_to(LogLines()))
    journal.save(replace(record, identity=replace(record.identity, boot_id="boot-0")), "as before the boot")
    spawner.forget_all()
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner, journal=journal) as (engine, _):
        engine.supervisor.adopt(engine.journal.unfinished())
        assert (await engine.until_done(run_id)).words == "the host restarted"
        assert prefect.state_of(run_id) == "CRASHED"
        assert len(spawner.started) == 1, "it ran, so it is not started again"


def _last(folder: Path, run_id: str) -> RunRecord:
    journal = Journal(path=str(folder / "journal.db"), now=lambda: a_record().created_at, log=log_to(LogLines()))
    record = journal.run(run_id)
    journal.close()
    assert record is not None
    return record


async def test_a_run_of_the_spawner_s_that_the_journal_does_not_know(tmp_path: Path) -> None:
    spawner, prefect = FakeSpawner(), FakePrefect(major=3)
    async with fake_engine(tmp_path / "", prefect=prefect, spawner=spawner) as (engine, _):
        run_id = await start(engine)
    (tmp_path / "journal.db").unlink()
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        (seen,) = engine.link.records()
        engine.supervisor.adopt_unknown(seen)
        spawner.exit(run_id, signal=9)
        assert (await engine.until_done(run_id)).words == "killed by SIGKILL"
        assert prefect.state_of(run_id) == "CRASHED"
        assert spawner.records == {}


# --- offers that have grown old -----------------------------------------------------------------------------------


def elsewhere(prefect: FakePrefect, run_id: str, state: str) -> None:
    """Another host claims it and runs it to this end."""
    for kind in ("PENDING", "RUNNING", state):
        prefect.set_state(run_id, kind)


ENDS = ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"]


@pytest.mark.parametrize("state", ENDS)
async def test_one_that_another_host_has_ended_meanwhile(tmp_path: Path, state: str) -> None:
    """Real servers give it to a late claim all the same, and it would run twice."""
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = engine.add_run(engine.deploy())
        stale = await engine.api.scheduled_runs(deployment_ids=engine.registry.ids(), before=engine.now())
        elsewhere(engine.prefect, run_id, state)
        assert engine.supervisor.offer(stale).claimed == (run_id,)
        await engine.until(lambda: engine.supervisor.run(run_id) is None)
        assert (engine.prefect.state_of(run_id), spawner.started) == (state, [])
        assert engine.journal.run(run_id) is None


async def test_one_that_was_ended_while_we_could_not_reach_the_api(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = engine.add_run(engine.deploy())
        engine.prefect.down = True
        assert engine.offer(run_id)
        await asyncio.sleep(600)
        elsewhere(engine.prefect, run_id, "COMPLETED")
        engine.prefect.down = False
        await engine.until(lambda: engine.supervisor.run(run_id) is None)
        assert (engine.prefect.state_of(run_id), spawner.started) == ("COMPLETED", [])


async def test_one_that_was_ended_while_no_daemon_was_there(tmp_path: Path) -> None:
    prefect = FakePrefect(major=3)
    prefect.down = True
    async with fake_engine(tmp_path, prefect=prefect) as (engine, _):
        run_id = engine.add_run(engine.deploy())
        assert engine.offer(run_id)
    elsewhere(prefect, run_id, "FAILED")
    prefect.down = False
    async with fake_engine(tmp_path, prefect=prefect) as (engine, spawner):
        engine.supervisor.adopt(engine.journal.unfinished())
        await engine.until(lambda: engine.supervisor.run(run_id) is None)
        assert (prefect.state_of(run_id), spawner.started) == ("FAILED", [])


async def test_one_that_somebody_asked_for_by_its_id_may_have_ended(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, _):
        run_id = engine.add_run(engine.deploy())
        elsewhere(engine.prefect, run_id, "CRASHED")
        found = await engine.api.read_run(run_id)
        assert found is not None
        assert engine.supervisor.claim_now(found)
        await engine.until(lambda: running(engine, run_id))


async def test_one_that_was_not_claimed_yet_when_the_host_stopped(tmp_path: Path) -> None:
    """stop.then is for runs that were ours; this one is left for whoever comes next."""
    prefect = FakePrefect(major=3)
    prefect.down = True
    async with fake_engine(tmp_path, prefect=prefect) as (engine, _):
        run_id = engine.add_run(engine.deploy())
        assert engine.offer(run_id)
        await asyncio.sleep(10)
        engine.supervisor.evict_all()
    prefect.down = False
    async with fake_engine(tmp_path, prefect=prefect) as (engine, spawner):
        engine.supervisor.adopt(engine.journal.unfinished())
        await engine.until(lambda: engine.supervisor.run(run_id) is None)
        assert prefect.history[run_id] == ["Scheduled"]
        assert (engine.journal.run(run_id), spawner.started) == (None, [])


async def test_one_that_was_claimed_when_the_host_stopped_and_nobody_knew(tmp_path: Path) -> None:
    prefect = FakePrefect(major=3)
    async with fake_engine(tmp_path, prefect=prefect) as (engine, _):
        run_id = engine.add_run(engine.deploy())
        prefect.trouble("set_state", after=True, times=1)
        prefect.trouble("", times=1000)
        assert engine.offer(run_id)
        await engine.until(lambda: prefect.state_of(run_id) == "PENDING")
        engine.supervisor.evict_all()
        assert engine.phase(run_id) == "claiming"
    prefect.troubles.clear()
    async with fake_engine(tmp_path, prefect=prefect) as (engine, spawner):
        engine.supervisor.adopt(engine.journal.unfinished())
        record = await engine.until_done(run_id)
        assert (record.words, spawner.started) == ("the host was stopped before it started", [])
        assert prefect.history[run_id] == ["Scheduled", "Pending", "Cancelled"]
