"""keeper.py and pools of other types: Prefect's own worker comes, hears of changes, and goes."""

from __future__ import annotations

import asyncio

from runnerd.pools.keeper import SYNC_S
from runnerd.pools.table import PoolService, PoolState
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.pools import FakePrefectWorker, Keeping, keeping, pool_settings

TEMPLATE = {"job_configuration": {}, "variables": {}}


def with_docker(*names: str) -> FakePrefect:
    prefect = FakePrefect(major=3)
    prefect.pools.add_worker_type("docker", "prefect-docker", TEMPLATE)
    for name in names:
        prefect.pools.create_pool(name, type="docker")
    return prefect


def the_only(one: Keeping, name: str = "etl") -> FakePrefectWorker:
    (worker,) = one.workers[name]
    return worker


async def test_a_worker_is_made_once_and_updated_at_every_synchronisation() -> None:
    async with keeping(pool_settings(), prefect=with_docker("etl")) as one:
        await asyncio.sleep(600)
        worker = the_only(one)
        assert 600 / SYNC_S <= len(worker.wanted) <= 600 / SYNC_S + 2
        served, kind, major = worker.wanted[0]
        assert (served.name, served.service, major) == ("etl", PoolService.OTHER, 3)
        assert kind is not None
        assert (kind.type, kind.package) == ("docker", "prefect-docker")
        assert (worker.steps, one.keeper.worker("etl"), one.keeper.worker("b")) == ("run ", worker, None)
        assert one.prefect.pools.beats == {}, "the worker itself does that"
        assert (one.served().open, one.found) == (False, [])


async def test_a_worker_hears_what_is_wanted_and_known_by_now() -> None:
    async with keeping(pool_settings(), prefect=with_docker("etl")) as one:
        one.prefect.pools.create_queue("etl", "high")
        await one.want(pool_settings(queues=("high",), limit=3))
        served = the_only(one).wanted[-1][0]
        assert (served.settings.limit, [queue.name for queue in served.queues]) == (3, ["high"])


async def test_a_type_that_the_server_does_not_know() -> None:
    prefect = FakePrefect(major=3)
    prefect.pools.create_pool("etl", type="of-my-own")
    async with keeping(pool_settings(), prefect=prefect) as one:
        assert the_only(one).wanted[0][1] is None, "the worker has to say what that means"


async def test_what_a_worker_cannot_do_is_the_pool_s_problem() -> None:
    async with keeping(pool_settings(), pool_settings("b"), prefect=with_docker("etl")) as one:
        the_only(one).problem = "there is no Docker here"
        assert one.problems() == {"etl": "there is no Docker here"}
        docker, own = one.keeper.documents([])
        assert (docker["service"], docker["problem"]) == ("other", "there is no Docker here")
        assert (docker["worker"], own["worker"]) == ({"pid": 17}, None)
        assert own["problem"] is None


async def test_a_worker_goes_with_its_pool() -> None:
    async with keeping(pool_settings("a"), pool_settings("b"), prefect=with_docker("a", "b")) as one:
        await one.want(pool_settings("b"))
        assert (the_only(one, "a").steps, the_only(one, "b").steps) == ("run left stopped ", "run ")
        assert one.keeper.worker("a") is None
        await one.want(pool_settings("a"), pool_settings("b"))
        assert [worker.steps for worker in one.workers["a"]] == ["run left stopped ", "run "]


async def test_a_pool_that_became_one_of_ours() -> None:
    async with keeping(pool_settings(), prefect=with_docker("etl")) as one:
        one.prefect.pools.delete_pool("etl")
        one.prefect.pools.create_pool("etl")
        await asyncio.sleep(60)
        assert the_only(one).steps == "run left stopped "
        assert (one.keeper.worker("etl"), one.served().service) == (None, PoolService.WORKER)
        assert len(one.found) == 1
        one.prefect.pools.delete_pool("etl")
        one.prefect.pools.create_pool("etl", type="docker")
        await asyncio.sleep(60)
        assert [worker.steps for worker in one.workers["etl"]] == ["run left stopped ", "run "]
        assert not one.served().open


async def test_a_pool_that_is_gone_or_is_to_be_something_else() -> None:
    pools = [pool_settings("a", create=False), pool_settings("b")]
    async with keeping(*pools, prefect=with_docker("a", "b")) as one:
        one.prefect.pools.delete_pool("a")
        await one.want(pools[0], pool_settings("b", type="process"))
        assert [the_only(one, name).steps for name in "ab"] == ["run left stopped "] * 2
        assert [served.state for served in one.table.entries()] == [PoolState.INVALID] * 2


async def test_a_worker_outlives_an_hour_without_the_api() -> None:
    async with keeping(pool_settings(), prefect=with_docker("etl")) as one:
        one.prefect.down = True
        await asyncio.sleep(3600)
        assert the_only(one).steps == "run "


async def test_a_host_that_stops_stops_its_workers_at_the_same_time() -> None:
    names = [f"p-{n}" for n in range(5)]
    async with keeping(*map(pool_settings, names), prefect=with_docker(*names)) as one:
        for name in names:
            the_only(one, name).slow_s = 20.0
        before = one.loop.time()
        await one.keeper.stop()
        assert one.loop.time() - before < 21.0
        assert {the_only(one, name).steps for name in names} == {"run left stopped "}


async def test_a_reload_while_a_worker_is_being_stopped() -> None:
    """Whoever stopped it is cancelled on the way; it must not be left running."""
    async with keeping(pool_settings(), prefect=with_docker("etl")) as one:
        worker = the_only(one)
        worker.slow_s = 20.0
        one.prefect.pools.delete_pool("etl")
        one.prefect.pools.create_pool("etl")
        one.keeper.outdated("etl")
        await asyncio.sleep(5)
        assert worker.steps == "run left "
        await one.want()
        await asyncio.sleep(60)
        assert worker.steps == "run left stopped "


def intervals(one: Keeping) -> list[int]:
    """What the pool's workers said last of their next heartbeat."""
    return [beat["heartbeat_interval_seconds"] for beat in one.prefect.pools.beats.values()]


async def test_a_host_that_drains_has_no_worker_of_prefect_s_until_it_claims_again() -> None:
    async with keeping(pool_settings(), prefect=with_docker("etl")) as one:
        first = the_only(one)
        one.wakes.draining.set()
        one.wakes.pools.set()
        await asyncio.sleep(1)
        assert (first.steps, one.keeper.worker("etl"), intervals(one)) == ("run left stopped ", None, [1])
        await asyncio.sleep(600)
        assert (one.workers["etl"], intervals(one)) == ([first], [1]), "it says goodbye once"
        one.wakes.draining.clear()
        one.wakes.pools.set()
        await asyncio.sleep(1)
        assert [worker.steps for worker in one.workers["etl"]] == ["run left stopped ", "run "]


async def test_a_worker_of_prefect_s_says_goodbye_when_the_host_stops() -> None:
    async with keeping(pool_settings(), prefect=with_docker("etl")) as one:
        await one.keeper.stop()
        assert (the_only(one).steps, intervals(one)) == ("run left stopped ", [1])
