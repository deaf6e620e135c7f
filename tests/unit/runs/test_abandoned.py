"""abandoned.py: runs that nothing takes up, told from those whose process may be alive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from runnerd.core.machine import Phase
from tests.kits.engine import Engine, fake_engine, start
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.nouns import Json, a_record
from tests.kits.pools import pool_settings, pooled, serve, with_pools

MINUTE = timedelta(minutes=1)


@asynccontextmanager
async def engine_of(folder: Path, major: int = 3) -> AsyncIterator[Engine]:
    async with fake_engine(folder, prefect=FakePrefect(major=major)) as (engine, _):
        yield engine


def text(at: datetime) -> str:
    return at.isoformat()


def pause(engine: Engine, run_id: str, *, since: timedelta, until: timedelta | None, reschedule: bool = False) -> str:
    """The state of pause_flow_run(), `since` ago, which would end itself in `until`."""
    engine.prefect.set_state(run_id, "PENDING")
    engine.prefect.set_state(run_id, "RUNNING")
    engine.prefect.set_state(run_id, "PAUSED")
    state = engine.prefect.runs[run_id]["state"]
    state["timestamp"] = text(engine.now() - since)
    details: Json = {"pause_timeout": text(engine.now() + until) if until is not None else None}
    state["state_details"] |= {**details, "pause_reschedule": reschedule}
    return run_id


def await_retry(
    engine: Engine, run_id: str, *, since: timedelta, due: timedelta, retry_type: str = "in_process"
) -> str:
    run = engine.prefect.runs[run_id]
    run["empirical_policy"] |= {"retries": 1, "retry_type": retry_type}
    run["state"] |= {"name": "AwaitingRetry", "timestamp": text(engine.now() - since)}
    run["next_scheduled_start_time"] = text(engine.now() + due)
    return run_id


def ended_here(engine: Engine, run_id: str, *, after: timedelta) -> None:
    """A process of this host had the run from an hour ago until `after` ago."""
    started_at, ended_at = engine.now() - 60 * MINUTE, engine.now() - after
    record = a_record(run_id, phase=Phase.DONE, started_at=started_at, ended_at=ended_at)
    engine.journal.save(record, "told")


async def named(engine: Engine) -> list[str]:
    await engine.abandoned.look_up()
    return sorted(one.run.id for one in engine.abandoned.known())


@pytest.mark.parametrize("major", [2, 3])
async def test_a_pause_that_no_live_process_would_leave_for_so_long(tmp_path: Path, major: int) -> None:
    async with engine_of(tmp_path, major) as engine:
        deployment = engine.deploy()
        runs = [engine.add_run(deployment) for _ in range(4)]
        stuck = pause(engine, runs[0], since=60 * MINUTE, until=-10 * MINUTE)
        pause(engine, runs[1], since=60 * MINUTE, until=-1 * MINUTE)  # its process may be about to end the pause
        pause(engine, runs[2], since=60 * MINUTE, until=10 * MINUTE)  # and this one waits
        pause(engine, runs[3], since=60 * MINUTE, until=-10 * MINUTE, reschedule=True)  # suspended: any host resumes it
        assert await named(engine) == [stuck]
        (problem,) = engine.problems.all()
        assert "has been paused inside a process since " in problem.message
        assert problem.message.endswith(f"set it to Cancelled in Prefect's UI, or: prefect flow-run delete {stuck}")


@pytest.mark.parametrize("major", [2, 3])
async def test_a_pause_whose_process_was_one_of_this_host(tmp_path: Path, major: int) -> None:
    async with engine_of(tmp_path, major) as engine:
        deployment = engine.deploy()
        gone, elsewhere = (engine.add_run(deployment) for _ in range(2))
        for run_id in (gone, elsewhere):
            pause(engine, run_id, since=20 * MINUTE, until=10 * MINUTE)
        ended_here(engine, gone, after=10 * MINUTE)
        ended_here(engine, elsewhere, after=30 * MINUTE)  # before the run was paused, by another host's process
        assert await named(engine) == [gone]
        assert "which has ended on this host" in engine.problems.all()[0].message


async def test_a_retry_that_is_overdue_or_whose_process_was_one_of_this_host(tmp_path: Path) -> None:
    async with engine_of(tmp_path) as engine:
        deployment = engine.deploy()
        runs = [engine.add_run(deployment) for _ in range(4)]
        overdue = await_retry(engine, runs[0], since=60 * MINUTE, due=-6 * MINUTE)
        gone = await_retry(engine, runs[1], since=20 * MINUTE, due=60 * MINUTE)
        ended_here(engine, gone, after=19 * MINUTE)
        await_retry(engine, runs[2], since=20 * MINUTE, due=60 * MINUTE)
        await_retry(engine, runs[3], since=60 * MINUTE, due=-6 * MINUTE, retry_type="reschedule")  # any host takes it
        assert await named(engine) == sorted([overdue, gone])
        messages = {problem.message for problem in engine.problems.all()}
        assert any(f"if no host has this process any more, cancel it in Prefect, or start it here: "
                   f"runnerctl execute {overdue}" in message for message in messages)  # fmt: skip
        assert any(f"on this host: cancel it in Prefect, or start it here: runnerctl execute {gone}" in message
                   for message in messages)  # fmt: skip


async def test_the_runs_of_pools_too(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, prefect=with_pools(etl={}, other={})) as (engine, _):
        serve(engine.pools, engine.prefect, pool_settings())
        ours, others = engine.add_run(pooled(engine)), engine.add_run(pooled(engine, "other"))
        for run_id in (ours, others):
            pause(engine, run_id, since=60 * MINUTE, until=-10 * MINUTE)
        assert await named(engine) == [ours]


async def test_a_run_that_is_live_here_is_not_abandoned(tmp_path: Path) -> None:
    async with engine_of(tmp_path) as engine:
        run_id = await start(engine)
        engine.prefect.set_state(run_id, "PAUSED")
        state = engine.prefect.runs[run_id]["state"]
        state["state_details"] |= {"pause_timeout": text(engine.now() - 10 * MINUTE), "pause_reschedule": False}
        assert await named(engine) == []


async def test_very_many_are_counted(tmp_path: Path) -> None:
    async with engine_of(tmp_path) as engine:
        deployment = engine.deploy()
        for _ in range(30):
            pause(engine, engine.add_run(deployment), since=60 * MINUTE, until=-10 * MINUTE)
        assert len(await named(engine)) == 30
        problems = engine.problems.all()
        assert len(problems) == 21
        assert problems[-1].message == "10 more flow runs wait for a process that has ended"


async def test_one_that_is_mended_is_soon_not_named_any_more(tmp_path: Path) -> None:
    async with engine_of(tmp_path) as engine:
        run_id = pause(engine, engine.add_run(engine.deploy()), since=60 * MINUTE, until=-10 * MINUTE)
        assert await named(engine) == [run_id]
        engine.prefect.set_state(run_id, "CANCELLED", force=True)
        await engine.abandoned.look_up_if_due()
        assert engine.abandoned.known() != [], "not asked again at each poll"
        await asyncio.sleep(61)
        await engine.abandoned.look_up_if_due()
        assert engine.abandoned.known() == []
