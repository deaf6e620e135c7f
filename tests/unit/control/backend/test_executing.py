"""host.py: a pool's run that somebody asks this host for by its id."""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path

import pytest

from runnerd.control.contract import Refused
from runnerd.core.exit_words import time_text
from tests.kits.engine import running
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.host import PEER, Daemon, daemon
from tests.kits.nouns import Json, copied, flow_run
from tests.kits.pools import pool_settings, pooled, serve, with_pools


async def execute(one: Daemon, run_id: str, *, again: bool = False) -> object:
    return await one.host.runs.execute(run_id, again=again, peer=PEER)


async def test_a_pool_s_run_by_its_id(tmp_path: Path) -> None:
    async with daemon(tmp_path, prefect=with_pools(etl={"queues": ["high"]}), runs=1) as one:
        serve(one.engine.pools, one.engine.prefect, pool_settings(limit=0))
        run_id = one.engine.add_run(pooled(one.engine, queue="high"), in_s=86_400.0)
        document = await execute(one, run_id)
        assert isinstance(document, dict), "it is asked for here and now, whatever the limits say"
        await one.engine.until(lambda: running(one.engine, run_id))
        (record,) = one.engine.supervisor.records()
        assert (record.pool, record.queue) == ("etl", "high")
        again = await execute(one, run_id)
        assert isinstance(again, Refused)
        assert (again.status, again.detail) == (
            409,
            f"cannot execute flow run {run_id}: the run is live on this host already",
        )


@pytest.mark.parametrize("pool", [True, False], ids=["a pool", "own deployments"])
async def test_a_list_that_arrives_after_its_end_does_not_put_the_run_on_offer(tmp_path: Path, pool: bool) -> None:
    async with daemon(tmp_path, prefect=with_pools(etl={})) as one:
        engine = one.engine
        if pool:
            serve(engine.pools, engine.prefect, pool_settings())
        api, name = (engine.api.pools, "runs") if pool else (engine.api, "scheduled_runs")
        answer, made, arrives = getattr(api, name), asyncio.Event(), asyncio.Event()

        async def slow(*given: Json, **asking: Json) -> Json:
            found = await answer(*given, **asking)
            made.set()
            await arrives.wait()
            return found

        run_id = engine.add_run(pooled(engine) if pool else engine.deploy())
        setattr(api, name, slow)
        polling = asyncio.create_task(engine.poller.poll_once())
        await made.wait()
        assert isinstance(await execute(one, run_id), dict)
        await engine.until(lambda: running(engine, run_id))
        engine.prefect.set_state(run_id, "COMPLETED")
        one.spawner.exit(run_id)
        await engine.until_done(run_id)
        copied(engine.prefect)
        arrives.set()
        await polling
        await asyncio.sleep(3)
        assert f"GET /flow_runs/{run_id}" not in copied(engine.prefect), "it was offered, and its state was read"
        assert run_id not in engine.poller.on_offer.runs


async def test_a_run_of_an_own_deployment_is_ours_in_whatever_pool_it_is(tmp_path: Path) -> None:
    async with daemon(tmp_path, prefect=with_pools(etl={})) as one:
        serve(one.engine.pools, one.engine.prefect, pool_settings())
        deployment_id = one.engine.deploy()
        (queue,) = one.engine.prefect.pools.queues("etl")
        one.engine.prefect.deployments[deployment_id] |= {"work_queue_id": queue.id}
        run_id = one.engine.add_run(deployment_id)
        assert isinstance(await execute(one, run_id), dict)
        (record,) = one.engine.supervisor.records()
        assert (record.pool, record.queue, record.deployment) == (None, None, "nightly")


@pytest.mark.parametrize("status", ["ABORT", "REJECT"])
async def test_a_completed_run_that_the_server_does_not_start_again(tmp_path: Path, status: str) -> None:
    """So do servers since 3.9.4; older ones accept the claim."""
    async with daemon(tmp_path) as one:
        run_id = await one.start()
        one.engine.prefect.set_state(run_id, "COMPLETED")
        one.spawner.exit(run_id)
        before = await one.engine.until_done(run_id)
        one.engine.prefect.guards_completed = status
        refused = await execute(one, run_id, again=True)
        assert isinstance(refused, Refused)
        cause = "the run is Completed, and Prefect does not start it again"
        assert (refused.status, refused.detail) == (409, f"cannot execute flow run {run_id}: {cause}")
        await one.engine.supervisor.emptied.wait()
        assert one.engine.journal.run(run_id) == before, "the record of its first attempt is as it was"
        assert len(one.spawner.runs_of(run_id)) == 1
        assert one.engine.prefect.history[run_id] == ["Scheduled", "Pending", "Running", "Completed"]
        assert one.engine.lines.events().count("claim lost") == 1
        one.engine.prefect.guards_completed = None
        assert isinstance(await execute(one, run_id, again=True), dict), "older servers start it again"


@pytest.mark.parametrize("major", [2, 3])
async def test_a_completed_run_is_not_run_again_by_accident(tmp_path: Path, major: int) -> None:
    async with daemon(tmp_path, prefect=FakePrefect(major=major)) as one:
        run_id = one.engine.add_run(one.engine.deploy())
        one.engine.prefect.set_state(run_id, "COMPLETED")
        refused = await execute(one, run_id)
        assert isinstance(refused, Refused)
        cause = "the run is Completed; runnerctl execute --again runs it once more, where Prefect permits that"
        assert (refused.status, refused.detail) == (409, f"cannot execute flow run {run_id}: {cause}")
        assert (one.spawner.started, one.engine.prefect.state_of(run_id)) == ([], "COMPLETED")
        assert isinstance(await execute(one, run_id, again=True), dict)
        await one.engine.until(lambda: running(one.engine, run_id))


async def test_the_next_attempt_of_a_run_was_created_when_the_run_was(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        run_id = await one.start()
        one.engine.prefect.set_state(run_id, "FAILED")
        one.spawner.exit(run_id)
        await one.engine.until_done(run_id)
        created = datetime.fromisoformat(one.engine.prefect.runs[run_id]["created"])
        first = one.host.runs.document(run_id)
        await asyncio.sleep(60)
        assert isinstance(await execute(one, run_id), dict)
        await one.engine.until(lambda: running(one.engine, run_id))
        second = one.host.runs.document(run_id)
        assert first is not None and second is not None
        assert (first["attempt"], second["attempt"]) == (1, 2)
        assert first["run_created_at"] == second["run_created_at"] == time_text(created)
        assert first["created_at"] < second["created_at"], "the claims"


@pytest.mark.parametrize("state", ["FAILED", "CRASHED"])
async def test_a_run_that_failed_is_retried(tmp_path: Path, state: str) -> None:
    async with daemon(tmp_path) as one:
        run_id = one.engine.add_run(one.engine.deploy())
        one.engine.prefect.set_state(run_id, state)
        assert isinstance(await execute(one, run_id), dict)
        await one.engine.until(lambda: running(one.engine, run_id))


async def test_a_run_that_completes_between_its_reading_and_its_claim(tmp_path: Path) -> None:
    """An offer of a poll: another host was faster, and its run is over already."""
    async with daemon(tmp_path) as one:
        run_id = one.engine.add_run(one.engine.deploy())
        one.engine.prefect.guards_completed = "ABORT"
        offer = flow_run(one.engine.prefect, run_id)
        one.engine.prefect.set_state(run_id, "COMPLETED")
        assert one.engine.supervisor.claim_now(offer)
        await one.engine.supervisor.emptied.wait()
        assert one.engine.journal.run(run_id) is None
        assert one.spawner.started == []
        assert not one.engine.lines.events("error", "warning")
