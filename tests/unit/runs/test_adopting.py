"""adopting.py: a new daemon adopts every run of the last one, and forgets what is not needed."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from runnerd.core.machine import Phase
from runnerd.core.prefect import StateType
from runnerd.core.process import ForkOf, LaunchSpec
from runnerd.launch.scratch import TIDY_PREFIX
from runnerd.launch.spec import HOOKS_PREFIX
from runnerd.processes.helper import HELPER_KEY_PREFIX
from runnerd.runs.adopting import adopt
from tests.kits.engine import Engine, fake_engine, start
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.fakes.fake_spawner import FakeSpawner
from tests.kits.nouns import a_record


async def adopted(engine: Engine) -> None:
    await adopt(journal=engine.journal, link=engine.link, supervisor=engine.supervisor, log=engine.ambient.log)


def spec(key: str, attempt: int = 1) -> LaunchSpec:
    return LaunchSpec(
        key=key, attempt=attempt, argv=("true",), environment={}, working_directory="/", output=f"/o/{key}"
    )


async def test_every_run_of_the_last_daemon_is_taken_up_in_its_phase(tmp_path: Path) -> None:
    spawner, prefect = FakeSpawner(), FakePrefect(major=3)
    spawner.stubborn = True
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        runs = {name: await start(engine, engine.deploy(name)) for name in ("running", "stopping", "ended")}
        engine.supervisor.cancel([runs["stopping"]])
        await engine.until(lambda: engine.phase(runs["stopping"]) == "stopping")
        prefect.down = True
        spawner.exit(runs["ended"], code=1)
        await engine.until(lambda: engine.phase(runs["ended"]) == "reporting")
        claiming = engine.add_run(engine.deploy("claiming"))
        engine.offer(claiming)
    prefect.down = False
    prefect.set_state(claiming, "PENDING")
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        await adopted(engine)
        assert (await engine.until_done(runs["ended"])).words == "exited 1"
        assert (await engine.until_done(runs["stopping"])).words == "cancelled; killed by SIGKILL"
        await engine.until(lambda: engine.supervisor.run(claiming) is None)
        assert engine.phase(runs["running"]) == "running"
        assert engine.lines.events("info")[:4] == ["adopted"] * 4
        assert [prefect.state_of(run_id) for run_id in runs.values()] == ["RUNNING", "CANCELLED", "CRASHED"]


async def test_a_run_only_the_spawner_knows_of(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = engine.add_run(engine.deploy())
        engine.prefect.set_state(run_id, "PENDING")
        engine.prefect.set_state(run_id, "RUNNING")
        await engine.link.spawn(spec(run_id, attempt=3))
        await adopted(engine)
        assert [record.id for record in engine.supervisor.records()] == [run_id]
        engine.supervisor.cancel([run_id])
        record = await engine.until_done(run_id)
        assert (record.attempt, record.deployment, record.api_state) == (3, "?", StateType.CANCELLED)
        assert spawner.records == {}


async def test_a_run_that_was_told_and_not_yet_forgotten(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = str(uuid.uuid4())
        await engine.link.spawn(spec(run_id))
        spawner.exit(run_id)
        engine.journal.save(a_record(run_id, phase=Phase.DONE), "told")
        await adopted(engine)
        assert (spawner.records, engine.supervisor.records()) == ({}, [])


async def test_inspections_that_nobody_waits_for_are_cleared(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        for key in ("old", "new"):
            await engine.link.spawn(spec(HELPER_KEY_PREFIX + key))
        spawner.exit(HELPER_KEY_PREFIX + "old")
        await asyncio.sleep(0)
        await adopted(engine)
        await asyncio.sleep(1)
        assert spawner.live() == []
        assert [(stop.key, stop.timeout_s) for stop in spawner.stops] == [(HELPER_KEY_PREFIX + "new", 0.0)]
        assert engine.supervisor.records() == []


@pytest.mark.parametrize("prefix", [HOOKS_PREFIX, TIDY_PREFIX])
async def test_what_follows_a_run_is_forgotten_once_it_has_ended(tmp_path: Path, prefix: str) -> None:
    """Where the run is still ours it has yet to hear how that went."""
    async with fake_engine(tmp_path) as (engine, spawner):
        ours = await start(engine)
        ended, under_way, of_ours = (prefix + key for key in (str(uuid.uuid4()), str(uuid.uuid4()), ours))
        for key in (ended, under_way, of_ours):
            await engine.link.spawn(spec(key))
        spawner.exit(ended)
        spawner.exit(of_ours)
        await asyncio.sleep(0)
        await adopted(engine)
        assert {key for key, _ in spawner.records} == {ours, under_way, of_ours}
        assert spawner.live() == [ours, under_way]


@pytest.mark.parametrize("key", ["server", "not-a-run"])
async def test_helpers_are_left_alone(tmp_path: Path, key: str) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        await engine.link.spawn(spec(key))
        await adopted(engine)
        assert (spawner.live(), engine.supervisor.records()) == ([key], [])


async def test_a_warm_run_is_one_for_the_next_daemon_too(tmp_path: Path) -> None:
    """Also where the journal is lost; and the interpreter is no run."""
    spawner = FakeSpawner()
    async with fake_engine(tmp_path, spawner=spawner) as (engine, _):
        run_id = str(uuid.uuid4())
        await engine.link.spawn(replace(spec("warm-1"), forks=True))
        await asyncio.sleep(1)
        await engine.link.spawn(replace(spec(run_id), fork_of=ForkOf(key="warm-1", attempt=1)))
        await adopted(engine)
        assert [(record.id, record.start) for record in engine.supervisor.records()] == [(run_id, "warm")]
