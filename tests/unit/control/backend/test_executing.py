"""host.py: a pool's run that somebody asks this host for by its id."""

from __future__ import annotations

from pathlib import Path

import pytest

from runnerd.control.contract import Refused
from tests.kits.engine import running
from tests.kits.host import PEER, Daemon, daemon
from tests.kits.pools import pool_settings, pooled, serve, with_pools

NOT_OURS = "neither its deployment nor its work pool is served here; runnerctl status lists both"


async def execute(one: Daemon, run_id: str) -> object:
    return await one.host.runs.execute(run_id, peer=PEER)


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


@pytest.mark.parametrize("pool", [None, "other", "docker"])
async def test_a_run_that_is_for_somebody_else(tmp_path: Path, pool: str | None) -> None:
    prefect = with_pools(etl={}, other={}, docker={"type": "docker"})
    async with daemon(tmp_path, prefect=prefect) as one:
        serve(one.engine.pools, prefect, pool_settings(), pool_settings("docker"))
        run_id = one.engine.add_run(prefect.pools.add_deployment(pool))
        refused = await execute(one, run_id)
        assert isinstance(refused, Refused)
        assert (refused.status, refused.detail) == (409, f"cannot execute flow run {run_id}: {NOT_OURS}")
        assert prefect.state_of(run_id) == "SCHEDULED"
