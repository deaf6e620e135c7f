"""adopting.py over runs of pools: started once whichever process dies in between, without leftovers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from runnerd.core.errors import SpawnerError
from runnerd.core.machine import Phase
from runnerd.core.prefect import StateType
from runnerd.core.process import LaunchSpec
from runnerd.launch.scratch import tidy_key
from runnerd.processes.protocol import Record
from runnerd.runs.adopting import adopt
from tests.kits.engine import Engine, running
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.fakes.fake_spawner import FakeSpawner
from tests.kits.nouns import Json
from tests.kits.pools import launched, launching, offer, pooled, tidied


class Breaking(FakeSpawner):
    """Its connection breaks once it has started something, before it can say so; then it is down."""

    breaks = False

    def spawn(self, spec: LaunchSpec) -> Record:
        record = super().spawn(spec)
        if not self.breaks:
            return record
        self.breaks, self.down = False, True
        self.lose()
        raise SpawnerError("cannot get an answer from the spawner: the spawner closed the connection")


async def taken_over(engine: Engine) -> None:
    await adopt(journal=engine.journal, link=engine.link, supervisor=engine.supervisor, log=engine.ambient.log)


def planned(engine: Engine) -> bool:
    """Whether it is on disk what is to be started."""
    return [record.output is not None for record in engine.supervisor.records()] == [True]


async def begin(engine: Engine, spawner: Breaking, run_id: str, until: str) -> None:
    """Take a run this far."""
    if until == "claiming":
        engine.prefect.down = True
        found = await asyncio.create_task(_offered(engine, run_id))
        assert engine.supervisor.offer([found]).claimed
        await asyncio.sleep(5)
        return
    if until == "claimed":
        engine.prefect.trouble("GET /deployments/", times=10_000)
    elif until == "planned":
        spawner.down = True
        spawner.lose()
    elif until == "asked for":
        spawner.breaks = True
    await offer(engine, run_id)
    if until == "running":
        await engine.until(lambda: running(engine, run_id))
    elif until == "claimed":
        await engine.until(lambda: engine.phase(run_id) == "starting")
    elif until == "planned":
        await engine.until(lambda: planned(engine))
    else:
        await engine.until(lambda: spawner.runs_of(run_id))
    if until == "ended":
        await engine.until(lambda: running(engine, run_id))
        engine.prefect.set_state(run_id, "COMPLETED")
        engine.prefect.down = True
        spawner.exit(run_id)
        await engine.until(lambda: engine.phase(run_id) == "reporting")


async def _offered(engine: Engine, run_id: str) -> Json:
    engine.prefect.down = False
    found = await engine.api.pools.placed_run(run_id)
    engine.prefect.down = True
    return found


# --- started once -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("until", ["claiming", "claimed", "planned", "asked for", "running", "ended"])
async def test_a_daemon_that_dies_and_the_next_one(tmp_path: Path, until: str) -> None:
    spawner, prefect = Breaking(), FakePrefect(major=3)
    async with launching(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        run_id = engine.add_run(pooled(engine))
        await begin(engine, spawner, run_id, until)
    prefect.troubles.clear()
    prefect.down = spawner.down = False
    async with launching(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        await taken_over(engine)
        if until != "ended":
            await engine.until(lambda: running(engine, run_id))
            prefect.set_state(run_id, "COMPLETED")
            spawner.exit(run_id)
        record = await tidied(engine, spawner, run_id)
        (started,) = spawner.runs_of(run_id)
        assert (record.api_state, record.attempt, record.pool) == (StateType.COMPLETED, 1, "etl")
        assert record.scratch == started.working_directory
        assert spawner.runs_of(tidy_key(run_id))[0].argv[-1] == started.working_directory
        assert spawner.records == {}
        assert prefect.history[run_id] == ["Scheduled", "Pending", "Completed"]


@pytest.mark.parametrize("until", ["claimed", "planned", "asked for"])
async def test_the_next_one_cannot_start_it(tmp_path: Path, until: str) -> None:
    """What was started is kept all the same, and nobody says that it was not submitted."""
    spawner, prefect = Breaking(), FakePrefect(major=3)
    async with launching(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        run_id = engine.add_run(pooled(engine))
        await begin(engine, spawner, run_id, until)
    prefect.troubles.clear()
    prefect.deployments.clear()
    spawner.down = False
    async with launching(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        await taken_over(engine)
        if until == "asked for":
            await engine.until(lambda: running(engine, run_id))
            prefect.set_state(run_id, "COMPLETED")
            spawner.exit(run_id)
        record = await tidied(engine, spawner, run_id)
        if until == "asked for":
            assert (record.api_state, record.words) == (StateType.COMPLETED, "exited 0")
        else:
            why = "submission failed: its deployment does not exist any more"
            assert (record.api_state, record.words, spawner.runs_of(run_id)) == (StateType.CRASHED, why, [])
        assert spawner.records == {}


async def test_a_cancel_while_no_daemon_is_there(tmp_path: Path) -> None:
    spawner, prefect = Breaking(), FakePrefect(major=3)
    async with launching(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        run_id = engine.add_run(pooled(engine))
        await begin(engine, spawner, run_id, "claimed")
        engine.supervisor.cancel([run_id])
    prefect.troubles.clear()
    async with launching(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        await taken_over(engine)
        record = await engine.until_done(run_id)
        assert (record.words, record.api_state) == ("cancelled before it started", StateType.CANCELLED)
        assert spawner.started == []


# --- nothing is left behind ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("how_far", ["not begun", "under way", "ended"])
async def test_a_daemon_that_dies_before_the_directory_is_gone(tmp_path: Path, how_far: str) -> None:
    spawner, prefect = Breaking(), FakePrefect(major=3)
    async with launching(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        run_id = engine.add_run(pooled(engine))
        await launched(engine, spawner, run_id)
        await engine.until(lambda: running(engine, run_id))
        prefect.set_state(run_id, "COMPLETED")
        if how_far == "not begun":
            spawner.exit(run_id)
            spawner.down = True
            spawner.lose()
            await asyncio.sleep(10)
        else:
            spawner.exit(run_id)
            await engine.until(lambda: tidy_key(run_id) in spawner.live())
        record = engine.journal.run(run_id)
        assert record is not None
        assert record.phase in (Phase.DONE, Phase.REPORTING, Phase.RUNNING)
    if how_far == "ended":
        spawner.exit(tidy_key(run_id))
    spawner.down = False
    async with launching(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        await taken_over(engine)
        record = await tidied(engine, spawner, run_id)
        await engine.until(lambda: not spawner.records)
        assert (record.phase, record.api_state) == (Phase.DONE, StateType.COMPLETED)
        assert len(spawner.runs_of(run_id)) == 1
        assert len(spawner.runs_of(tidy_key(run_id))) >= 1
        assert prefect.history[run_id] == ["Scheduled", "Pending", "Completed"], "it is not told again"


async def test_a_run_that_was_started_again_leaves_two_directories(tmp_path: Path) -> None:
    async with launching(tmp_path, prefect=FakePrefect(major=3)) as (engine, spawner):
        run_id = engine.add_run(pooled(engine))
        await launched(engine, spawner, run_id)
        for attempt in (1, 2):
            await engine.until(lambda at=attempt: len(spawner.runs_of(run_id)) == at)
            await engine.until(lambda: running(engine, run_id))
            spawner.exit(run_id, code=None)
        await tidied(engine, spawner, run_id)
        first, second = (spec.working_directory for spec in spawner.runs_of(run_id))
        assert first != second
        (tidy,) = spawner.runs_of(tidy_key(run_id))
        assert tidy.argv[-4:] == (f"{first}-hooks", f"{second}-hooks", first, second)
        assert spawner.records == {}


async def test_a_run_that_was_to_be_started_again_and_was_cancelled(tmp_path: Path) -> None:
    async with launching(tmp_path, prefect=FakePrefect(major=3)) as (engine, spawner):
        run_id = engine.add_run(pooled(engine))
        first = await launched(engine, spawner, run_id)
        await engine.until(lambda: running(engine, run_id))
        engine.prefect.trouble("GET /deployments/", times=50)
        spawner.exit(run_id, code=None)
        await engine.until(lambda: engine.phase(run_id) == "starting")
        engine.supervisor.cancel([run_id])
        record = await tidied(engine, spawner, run_id)
        assert (record.attempt, record.words) == (2, "cancelled before it started")
        (tidy,) = spawner.runs_of(tidy_key(run_id))
        assert first.working_directory in tidy.argv
        assert spawner.records == {}


async def test_a_run_that_was_never_started_leaves_nothing_to_remove(tmp_path: Path) -> None:
    async with launching(tmp_path, prefect=FakePrefect(major=3)) as (engine, spawner):
        run_id = engine.add_run(pooled(engine, job_variables={"command": "'"}))
        await offer(engine, run_id)
        record = await engine.until_done(run_id)
        assert (record.scratch, spawner.started, spawner.records) == (None, [], {})
