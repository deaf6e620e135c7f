"""preparing.py: starts that have to wait, and a stop meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from runnerd.core.machine import Intent, Phase
from runnerd.core.prefect import StateType
from runnerd.files.bounded_calls import BoundedCalls, Unanswered
from runnerd.runs.drain import REPORT_S
from tests.kits.engine import Engine, at, fake_engine, flow_run, resume, running
from tests.kits.engine_parts import SpecLauncher
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.fakes.fake_spawner import FakeSpawner
from tests.kits.host import daemon
from tests.kits.journal import left_behind
from tests.kits.pools import finish, launched, launching, offer, pool_settings, pooled

T = TypeVar("T")
HANGS = Unanswered("environment_file /mnt/env: did not answer within 10 s")


class Dead(BoundedCalls):
    """A disk that does not answer while it is `dead`."""

    def __init__(self) -> None:
        super().__init__()
        self.dead = True

    async def call(self, place: str, call: Callable[[], T]) -> T | Unanswered:
        return Unanswered("did not answer within 10 s") if self.dead else call()


def launcher_of(engine: Engine) -> SpecLauncher:
    assert isinstance(engine.launcher, SpecLauncher)
    return engine.launcher


# --- what does not answer ----------------------------------------------------------------------------------------


async def test_a_run_waits_for_what_does_not_answer(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = engine.add_run(engine.deploy())
        launcher_of(engine).hangs = HANGS
        engine.offer(run_id)
        await asyncio.sleep(60.0)
        assert (engine.prefect.state_of(run_id), spawner.started) == ("PENDING", [])
        assert engine.lines.events("error") == ["a run waits for what does not answer"], "once"
        assert 5 <= len(launcher_of(engine).asked) <= 8
        launcher_of(engine).hangs = None
        await engine.until(lambda: running(engine, run_id))


async def test_what_never_answers_holds_one_slot_and_not_for_ever(tmp_path: Path) -> None:
    """A deployment on a dead disk is no reason for the host to start nothing else."""
    async with fake_engine(tmp_path, runs=2) as (engine, _):
        dead, good = engine.deploy("dead"), engine.deploy("good")
        launcher_of(engine).hangs, launcher_of(engine).hanging = HANGS, "dead"
        first, second, other = engine.add_run(dead), engine.add_run(dead), engine.add_run(good)
        engine.offer(first)
        await engine.until(lambda: engine.changes and engine.changes[-1].waiting)
        offered = [flow_run(engine.prefect, run_id) for run_id in (second, other)]
        assert engine.supervisor.offer(offered).skipped == {second: f"a run before it waits: {HANGS.words}"}
        await engine.until(lambda: running(engine, other))
        record = await engine.until_done(first)
        assert (record.words, engine.prefect.state_of(first)) == (f"could not start: {HANGS.words}", "CRASHED")
        assert engine.supervisor.offer(offered[:1]).claimed == (second,)


@pytest.mark.parametrize("intent", [Intent.CANCEL, Intent.EVICT])
async def test_a_run_that_waits_is_cancelled_or_stopped_at_once(tmp_path: Path, intent: Intent) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = engine.add_run(engine.deploy())
        launcher_of(engine).hangs = HANGS
        engine.offer(run_id)
        await asyncio.sleep(15.0)
        before = at(engine)
        engine.supervisor.cancel([run_id]) if intent is Intent.CANCEL else engine.supervisor.evict_all()
        record = await engine.until_done(run_id)
        assert (record.api_state, record.waiting, spawner.started) == (StateType.CANCELLED, None, [])
        assert at(engine) - before < 1.0


async def test_the_documents_say_what_a_run_waits_for(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        run_id = one.engine.add_run(one.engine.deploy())
        launcher_of(one.engine).hangs = HANGS
        one.engine.offer(run_id)
        await one.engine.until(lambda: one.engine.changes and one.engine.changes[-1].waiting)
        (found,) = one.host.status()["runs"]
        assert (found["id"], found["phase"], found["waiting"]) == (run_id, "starting", HANGS.words)
        launcher_of(one.engine).hangs = None
        await one.engine.until(lambda: running(one.engine, run_id))
        assert [run["waiting"] for run in one.host.status()["runs"]] == [None]


async def test_a_run_that_waits_for_disk_space_says_so_too(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        one.spawner.full = True
        run_id = one.engine.add_run(one.engine.deploy())
        one.engine.offer(run_id)
        await one.engine.until(lambda: one.engine.changes and one.engine.changes[-1].waiting)
        assert "No space left" in one.host.status()["runs"][0]["waiting"]


async def test_a_process_that_runs_is_watched_though_its_files_do_not_answer(tmp_path: Path) -> None:
    """The last daemon died before it could write down that it was started."""
    spawner, prefect = FakeSpawner(), FakePrefect(major=3)
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        run_id = engine.add_run(engine.deploy())
        engine.offer(run_id)
        await engine.until(lambda: running(engine, run_id))
        (record,), known = engine.journal.unfinished(), engine.registry.entries()
    left_behind(tmp_path, replace(record, phase=Phase.STARTING, identity=None, pgid=None, started_at=None))
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        launcher_of(engine).hangs = HANGS
        resume(engine, known)
        await engine.until(lambda: running(engine, run_id))


@pytest.mark.parametrize("of_pool", [False, True])
async def test_the_launchers_wait_for_environment_files(tmp_path: Path, of_pool: bool) -> None:
    calls, run = Dead(), {"environment_file": str(tmp_path / "env")}
    prefect = FakePrefect(major=3)
    prefect.pools.create_pool("etl")
    wanted = [pool_settings(run=run)]
    async with launching(tmp_path, prefect=prefect, calls=calls, wanted=wanted) as (engine, spawner):
        run_id = engine.add_run(pooled(engine) if of_pool else engine.deploy(run=run))
        if of_pool:
            await offer(engine, run_id)
        else:
            engine.offer(run_id)
        await asyncio.sleep(60.0)
        (record,) = engine.supervisor.records()
        words = f"environment_file {tmp_path}/env: did not answer within 10 s"
        assert (record.phase, record.waiting) == (Phase.STARTING, words)
        assert await engine.launcher.prepare_hooks(record) == Unanswered(words)
        (tmp_path / "env").write_text("A=1\n")
        calls.dead = False
        assert (await launched(engine, spawner, run_id)).environment["A"] == "1"
        engine.prefect.set_state(run_id, "COMPLETED")
        spawner.exit(run_id)


# --- a stop meanwhile ---------------------------------------------------------------------------------------------


async def stopped(engine: Engine) -> float:
    """How long a stop takes; whether it ends is what is tested."""
    before = at(engine)
    engine.drain.begin_stop(timeout_s=30.0)
    async with asyncio.timeout(3600.0):
        await engine.drain.finish(hurry=asyncio.Queue(), extend=lambda: None)
    return at(engine) - before


async def test_a_stop_does_not_wait_for_the_api_that_a_start_needs(tmp_path: Path) -> None:
    prefect, spawner = FakePrefect(major=3), FakeSpawner()
    async with launching(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        run_id = engine.add_run(pooled(engine))
        prefect.trouble("GET /deployments/", times=10_000)
        await offer(engine, run_id)
        await engine.until(lambda: engine.phase(run_id) == "starting")
        prefect.down = True
        await asyncio.sleep(5.0)
        assert await stopped(engine) == pytest.approx(30.0 + REPORT_S, abs=0.2)
        assert engine.phase(run_id) == "reporting"
    prefect.troubles.clear()
    prefect.down = False
    async with launching(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        engine.supervisor.adopt(engine.journal.unfinished())
        record = await engine.until_done(run_id)
        assert (record.api_state, record.words) == (StateType.CANCELLED, "the host was stopped before it started")
        assert spawner.started == []


async def test_a_stop_does_not_wait_for_the_api_that_knows_whether_a_run_ran(tmp_path: Path) -> None:
    spawner, prefect = FakeSpawner(), FakePrefect(major=3)
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        run_id = engine.add_run(engine.deploy())
        engine.offer(run_id)
        await engine.until(lambda: running(engine, run_id))
        (record,), known = engine.journal.unfinished(), engine.registry.entries()
    left = replace(record, phase=Phase.STARTING, identity=None, pgid=None, started_at=None)
    left_behind(tmp_path, left, boot_id="boot-0")
    spawner.forget_all()
    prefect.down = True
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        resume(engine, known)
        await asyncio.sleep(5.0)
        assert await stopped(engine) == pytest.approx(30.0 + REPORT_S, abs=0.2)
        assert [record.phase for record in engine.journal.unfinished()] == [Phase.REPORTING]
    prefect.down = False
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        resume(engine, known)
        assert (await engine.until_done(run_id)).api_state is StateType.CANCELLED


async def test_a_cancel_does_not_wait_for_the_api_that_a_start_needs(tmp_path: Path) -> None:
    prefect = FakePrefect(major=3)
    async with launching(tmp_path, prefect=prefect) as (engine, spawner):
        cancelled, other = engine.add_run(pooled(engine)), engine.add_run(pooled(engine))
        prefect.trouble("GET /deployments/", times=10_000)
        for run_id in (cancelled, other):
            await offer(engine, run_id)
        await asyncio.sleep(20.0)
        engine.supervisor.cancel([cancelled])
        assert (await engine.until_done(cancelled)).api_state is StateType.CANCELLED
        assert at(engine) < 25.0
        prefect.troubles.clear()
        await launched(engine, spawner, other)
        await finish(engine, spawner, other)
