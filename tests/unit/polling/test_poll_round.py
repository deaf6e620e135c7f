"""poll_round.py over work pools, on a jumping clock: which requests are made, and which runs start."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.kits.engine import BOUND, POLL, at, events, polling, started_at
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.nouns import Json, copied
from tests.kits.pools import asked, end, kick, offered_by, pool_settings, pooled, with_pools

# --- what is asked ----------------------------------------------------------------------------------------------


async def test_a_poll_is_one_request_for_each_pool(tmp_path: Path) -> None:
    prefect = with_pools(a={"queues": ["x", "y"]}, b={}, docker={"type": "docker"})
    async with polling(tmp_path, prefect=prefect, watching=True) as (engine, _):
        engine.deploy()
        kick(engine, *map(pool_settings, ("a", "b", "docker")))
        await asyncio.sleep(3595)
        asked = copied(prefect)
        assert {what: asked.count(what) for what in set(asked)} == {
            "GET /admin/version": 1,
            "GET /csrf-token": 1,
            POLL: 360,
            offered_by("a"): 360,
            offered_by("b"): 360,
            BOUND: 24,  # every five minutes, for the deployments and for the pools
        }


async def test_pools_are_polled_where_there_are_no_deployments(tmp_path: Path) -> None:
    async with polling(tmp_path, prefect=with_pools(etl={})) as (engine, _):
        kick(engine, pool_settings())
        run_id = engine.add_run(pooled(engine))
        await started_at(engine, run_id)
        record = engine.supervisor.records()[0]
        assert (record.pool, record.queue) == ("etl", "default")
        assert POLL not in engine.prefect.asked


async def test_only_the_queues_that_are_served(tmp_path: Path) -> None:
    async with polling(tmp_path, prefect=with_pools(etl={"queues": ["high", "low"]})) as (engine, _):
        kick(engine, pool_settings(queues=("high", "low")))
        mine, other = (engine.add_run(pooled(engine, queue=queue)) for queue in ("low", "default"))
        await started_at(engine, mine)
        await asyncio.sleep(60)
        assert engine.prefect.state_of(other) == "SCHEDULED"


async def test_prefetch_is_each_pool_s_own(tmp_path: Path) -> None:
    async with polling(tmp_path, prefect=with_pools(a={}, b={}), poll_interval_s=100.0) as (engine, _):
        kick(engine, pool_settings("a", prefetch_s=60.0), pool_settings("b", prefetch_s=5.0))
        early = [engine.add_run(pooled(engine, pool), in_s=90.0) for pool in "ab"]
        beyond = [engine.add_run(pooled(engine, pool), in_s=120.0) for pool in "ab"]
        await asyncio.sleep(1)
        assert set(engine.poller.on_offer.runs) == {*early, beyond[0]}, "known a poll before their start"
        assert await started_at(engine, early[0]) == pytest.approx(30.0, abs=0.2)
        assert await started_at(engine, beyond[0]) == pytest.approx(60.0, abs=0.2)
        assert await started_at(engine, early[1]) == pytest.approx(85.0, abs=0.2)
        assert asked(engine, "a") == 1


async def test_a_pool_or_a_queue_that_is_not_as_it_was_known(tmp_path: Path) -> None:
    prefect = with_pools(a={"queues": ["x"]}, b={}, c={})
    async with polling(tmp_path, prefect=prefect) as (engine, _):
        kick(engine, *(pool_settings(name) for name in "abc"))
        prefect.pools.delete_queue("a", "x")
        prefect.pools.delete_pool("b")
        run_id = engine.add_run(pooled(engine, "c"))
        await started_at(engine, run_id)
        assert engine.outdated == ["a", "b"], "whoever keeps them is told"


async def test_legacy_queues_take_runs_by_tag(tmp_path: Path) -> None:
    prefect = FakePrefect(major=2)
    by_tag = prefect.pools.add_tag_queue("gpu", tags=["gpu"])
    async with polling(tmp_path, prefect=prefect) as (engine, _):
        assert by_tag.filter is not None
        kick(engine, pool_settings("default-agent-pool", queues=("gpu",)))
        tagged = engine.add_run(pooled(engine, None, tags=["gpu"]))
        named = engine.add_run(pooled(engine, "default-agent-pool", queue="gpu"))
        other = engine.add_run(pooled(engine, None, tags=["cpu"]))
        await started_at(engine, tagged)
        await started_at(engine, named)
        await asyncio.sleep(15)
        assert {(record.id, record.pool, record.queue) for record in engine.supervisor.records()} == {
            (run_id, "default-agent-pool", "gpu") for run_id in (tagged, named)
        }
        assert prefect.state_of(other) == "SCHEDULED"
        prefect.pools.delete_queue("default-agent-pool", "gpu")
        await asyncio.sleep(15)
        assert set(engine.outdated) == {"default-agent-pool"}


# --- who starts -------------------------------------------------------------------------------------------------


async def test_the_order_of_queues_is_kept(tmp_path: Path) -> None:
    prefect = with_pools(etl={"queues": ["second", "third"]})
    async with polling(tmp_path, prefect=prefect, runs=1) as (engine, spawner):
        ids = {
            name: engine.add_run(pooled(engine, queue=queue), in_s=-ago)
            for name, queue, ago in [("d", "third", 900), ("c", "second", 50), ("b", "second", 500)]
        }
        ids["a"] = engine.add_run(pooled(engine), in_s=0)
        kick(engine, pool_settings())
        for name in "abcd":
            await started_at(engine, ids[name])
            assert len(engine.supervisor.records()) == 1
            await end(engine, spawner, ids[name])
        assert at(engine) < 5.0, "a free slot takes the next without waiting for a poll"
        assert asked(engine) == 1


@pytest.mark.parametrize("what", ["pool", "queue"])
async def test_what_is_paused_delivers_nothing(tmp_path: Path, what: str) -> None:
    async with polling(tmp_path, prefect=with_pools(etl={})) as (engine, _):
        pools = engine.prefect.pools

        def pause(yes: bool) -> None:
            if what == "pool":
                pools.update_pool("etl", {"is_paused": yes})
            else:
                pools.update_queue("etl", "default", {"is_paused": yes})

        pause(True)
        run_id = engine.add_run(pooled(engine))
        kick(engine, pool_settings())
        await asyncio.sleep(600)
        assert engine.prefect.state_of(run_id) == "SCHEDULED"
        pause(False)
        assert await started_at(engine, run_id) < 611.0


async def test_own_deployments_and_pools_take_turns_by_time(tmp_path: Path) -> None:
    async with polling(tmp_path, prefect=with_pools(a={}, b={}), runs=1) as (engine, spawner):
        own, a, b = engine.deploy(), pooled(engine, "a"), pooled(engine, "b")
        ids = [
            engine.add_run(deployment_id, in_s=-100.0 + n)
            for n, deployment_id in enumerate([a, own, b, own, a, b, b, own])
        ]
        kick(engine, pool_settings("a"), pool_settings("b"))
        for run_id in ids:
            await started_at(engine, run_id)
            assert [record.id for record in engine.supervisor.records()] == [run_id]
            await end(engine, spawner, run_id)


async def test_what_is_not_due_yet_holds_up_nobody_of_its_pool(tmp_path: Path) -> None:
    """It is the first of its pool by its queue; the next of that pool is due before all others."""
    prefect = with_pools(etl={"queues": ["second"]})
    async with polling(tmp_path, prefect=prefect, runs=1, poll_interval_s=1000.0) as (engine, _):
        engine.add_run(pooled(engine), in_s=19.0)
        late = engine.add_run(pooled(engine, queue="second"), in_s=-100.0)
        engine.add_run(engine.deploy(), in_s=-50.0)
        kick(engine, pool_settings())
        await asyncio.sleep(1)
        assert [record.id for record in engine.supervisor.records()] == [late]


async def test_a_run_that_is_being_claimed_is_not_claimed_again(tmp_path: Path) -> None:
    async with polling(tmp_path, prefect=with_pools(etl={})) as (engine, spawner):
        run_id = engine.add_run(pooled(engine))
        engine.prefect.trouble("set_state", status=503, times=50)
        kick(engine, pool_settings())
        await started_at(engine, run_id)
        assert asked(engine) > 3, "it was on offer at several polls"
        assert len(spawner.runs_of(run_id)) == 1
        assert events(engine, run_id).count("claiming") == 1


async def test_a_run_of_a_deployment_of_our_own_is_ours_in_whatever_pool_it_is(tmp_path: Path) -> None:
    """Else its pool's template would decide how it is started, and only while the host is busy."""
    async with polling(tmp_path, prefect=with_pools(etl={}), runs=1) as (engine, spawner):
        deployment_id = engine.deploy()
        pool = engine.prefect.pools.queues("etl")[0]
        engine.prefect.deployments[deployment_id] |= {"work_queue_id": pool.id}
        first, second = (engine.add_run(deployment_id, in_s=-100.0 + n) for n in range(2))
        kick(engine, pool_settings())
        await started_at(engine, first)
        await asyncio.sleep(60)
        await end(engine, spawner, first)
        await started_at(engine, second)
        record = engine.journal.run(second)
        assert record is not None
        assert (record.pool, record.deployment) == (None, "nightly")


@pytest.mark.parametrize("served", [True, False])
async def test_a_deployment_of_our_files_in_a_pool_is_served_as_its_pool_is(tmp_path: Path, served: bool) -> None:
    async with polling(tmp_path, prefect=with_pools(etl={}, other={})) as (engine, _):
        deployment_id = engine.deploy(work_pool="etl")
        pool = engine.prefect.pools.queues("etl")[0]
        engine.prefect.deployments[deployment_id] |= {"work_queue_id": pool.id}
        run_id = engine.add_run(deployment_id)
        kick(engine, pool_settings("etl" if served else "other"))
        if served:
            await started_at(engine, run_id)
        await asyncio.sleep(60)
        record = engine.journal.run(run_id)
        assert (record.pool, record.deployment) == ("etl", "nightly") if served and record else record is None


async def test_an_hour_without_the_api(tmp_path: Path) -> None:
    async with polling(tmp_path, prefect=with_pools(a={}, b={}), watching=True) as (engine, spawner):
        kick(engine, pool_settings("a"), pool_settings("b"))
        before = engine.add_run(pooled(engine, "a"))
        await started_at(engine, before)
        engine.prefect.down = True
        meanwhile = [engine.add_run(pooled(engine, pool)) for pool in "ab"]
        await asyncio.sleep(3600)
        assert (spawner.live(), engine.pulse.stuck()) == ([before], ())
        engine.prefect.down = False
        for run_id in meanwhile:
            assert await started_at(engine, run_id) < 3640.0


@pytest.mark.parametrize("trouble", [{"status": 500}, {"status": 403}, {}])
async def test_a_pool_that_cannot_be_asked_hides_no_other(tmp_path: Path, trouble: dict[str, Json]) -> None:
    async with polling(tmp_path, prefect=with_pools(a={}, b={}), runs=2) as (engine, spawner):
        engine.prefect.trouble(offered_by("a"), times=10_000, **trouble)
        own = engine.deploy()
        kick(engine, pool_settings("a"), pool_settings("b"))
        first = engine.add_run(pooled(engine, "b"))
        await started_at(engine, first)
        second, third = engine.add_run(pooled(engine, "b")), engine.add_run(own)
        await asyncio.sleep(15)
        fourth = engine.add_run(own, in_s=-1.0)
        await asyncio.sleep(15)
        assert len(spawner.live()) == 2
        await end(engine, spawner, first)
        await asyncio.sleep(1)
        assert len(spawner.live()) == 2, "a free slot waits for no other pool"
        await asyncio.sleep(600)
        assert len({first, second, third, fourth} & {spec.key for spec in spawner.started}) == 3
        engine.prefect.troubles.clear()
        await end(engine, spawner, spawner.live()[0])
        await started_at(engine, fourth if not spawner.runs_of(fourth) else third)
