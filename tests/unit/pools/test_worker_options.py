"""The options of `prefect worker start` and `prefect agent start` that other tests leave: --prefetch-seconds, --limit.

Which queues are served: polling/test_poll_round.py; what is made: test_creating.py; whole daemons with --once, a name
and health: tests/process/test_once_with_pools.py.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from tests.kits.engine import Engine, fake_engine, polling, started_at
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.nouns import Json
from tests.kits.pools import pool_settings, serve


def a_pool(engine: Engine, *, type: str = "process", **changes: Json) -> None:
    """The work pool etl, served as `changes` say."""
    engine.prefect.pools.create_pool("etl", type=type)
    serve(engine.pools, engine.prefect, pool_settings("etl", **changes))


def due(engine: Engine, *, in_s: float = 0.0) -> str:
    """A run of a deployment of its own; its id."""
    deployment_id = engine.prefect.pools.add_deployment("etl")
    return engine.prefect.pools.add_run(deployment_id, due=engine.now() + timedelta(seconds=in_s))


async def end(engine: Engine, spawner: Json, run_id: str) -> None:
    await engine.until(lambda: engine.phase(run_id) == "running")
    engine.prefect.set_state(run_id, "RUNNING")
    engine.prefect.set_state(run_id, "COMPLETED")
    spawner.exit(run_id)
    await engine.until_done(run_id)


async def test_prefetch_is_how_long_before_it_is_due_a_run_is_started(tmp_path: Path) -> None:
    async with polling(tmp_path, poll_interval_s=3600.0) as (engine, _):
        a_pool(engine, prefetch_s=60.0)
        run_id = due(engine, in_s=100.0)
        engine.wakes.poll_now()
        assert 39.0 < await started_at(engine, run_id) < 41.0


async def test_limit_is_how_many_runs_of_the_pool_there_may_be_here(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, runs=10) as (engine, spawner):
        a_pool(engine, limit=2)
        runs = [due(engine, in_s=-number) for number in range(3)]
        offered = await engine.poller.poll_once()
        assert sorted(offered.claimed) == sorted(runs[1:]), "those that were due first"
        assert dict(offered.skipped) == {runs[0]: "pool etl's limit 2 is reached"}
        await end(engine, spawner, runs[2])
        assert (await engine.poller.poll_once()).claimed == (runs[0],)


async def test_the_host_s_own_limit_holds_beside_the_pool_s(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, runs=1) as (engine, _):
        a_pool(engine, limit=2)
        runs = [due(engine, in_s=-number) for number in range(2)]
        offered = await engine.poller.poll_once()
        assert (offered.claimed, dict(offered.skipped)) == ((runs[1],), {runs[0]: "limits.runs 1 is reached"})


async def test_an_agent_s_run_is_one_of_its_pool_too(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, prefect=FakePrefect(major=2)) as (engine, _):
        a_pool(engine, type="prefect-agent", limit=1)
        first, second = due(engine, in_s=-1), due(engine)
        offered = await engine.poller.poll_once()
        assert (offered.claimed, [*offered.skipped]) == ((first,), [second])
