"""keeper.py: pools are known, heard of, and never the reason that anything else stops."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from runnerd.core.place import Json
from runnerd.core.prefect import ApiCondition
from runnerd.pools.heartbeats import GOODBYE_S, HEARTBEAT_S
from runnerd.pools.keeper import SYNC_S
from runnerd.pools.table import PoolService, PoolState
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.nouns import copied
from tests.kits.pools import HOST, Keeping, keeping, pool_settings

BEAT = "POST /work_pools/etl/workers/heartbeat"


def intervals(one: Keeping) -> dict[str, int]:
    """What the pools heard last of this host: the interval it promised, by pool."""
    names = {pool["id"]: name for name, pool in one.prefect.pools.pools.items()}
    beats = one.prefect.pools.beats.items()
    return {names[pool]: beat["heartbeat_interval_seconds"] for (pool, worker), beat in beats if worker == HOST}


# --- heartbeats -------------------------------------------------------------------------------------------------


async def test_a_served_pool_hears_of_this_host_all_the_time() -> None:
    async with keeping(pool_settings()) as one:
        assert [(w.name, w.status) for w in one.prefect.pools.workers("etl")] == [(HOST, "ONLINE")]
        copied(one.prefect)
        await asyncio.sleep(3600)
        asked = copied(one.prefect)
        assert 3600 / HEARTBEAT_S <= asked.count(BEAT) <= 3600 / SYNC_S
        assert len(asked) == 3 * asked.count(BEAT), "the pool, its queues and the heartbeat, nothing else"
        assert intervals(one) == {"etl": HEARTBEAT_S}
        heard = one.served().heartbeat_at
        assert heard is not None
        assert (one.loop.utcnow() - heard).total_seconds() <= SYNC_S  # type: ignore[attr-defined]


async def test_agents_have_no_heartbeat() -> None:
    prefect = FakePrefect(major=2)
    prefect.pools.create_pool("etl", type="prefect-agent")
    async with keeping(pool_settings(), prefect=prefect) as one:
        assert one.served().service is PoolService.AGENT
        await asyncio.sleep(100)
        await one.want()
        await one.want(pool_settings())
        await one.keeper.stop()
        assert one.asked(BEAT) == 0, "not even to say goodbye"
        assert prefect.pools.beats == {}


async def test_a_pool_whose_template_overran_shows_it() -> None:
    why = "cannot resolve the job template of work pool etl: it took more than 5s"
    async with keeping(pool_settings(), job_problem={"etl": why}.get) as one:
        assert one.problems() == {"etl": why}
        (document,) = one.keeper.documents([])
        assert (document["problem"], document["state"]) == (why, "ready"), "its agents and queues are as they were"


async def test_a_pool_that_was_never_ours_hears_no_goodbye() -> None:
    prefect = FakePrefect(major=3)
    prefect.pools.create_pool("etl", type="docker")
    async with keeping(pool_settings(type="process"), prefect=prefect) as one:
        await one.want()
        assert prefect.pools.beats == {}


async def test_an_hour_without_the_api_changes_nothing() -> None:
    async with keeping(pool_settings()) as one:
        known = one.served()
        one.prefect.down = True
        copied(one.prefect)
        await asyncio.sleep(3600)
        assert 100 < len(copied(one.prefect)) < 400, "it is asked again for ever, and not all the time"
        assert replace(one.served(), heartbeat_at=None) == replace(known, heartbeat_at=None)
        assert (one.served().state, one.problems()) == (PoolState.READY, {})
        assert one.pulse.stuck() == ()
        assert one.lines.events("warning", "error") == []
        one.prefect.down = False
        await asyncio.sleep(60)
        assert one.asked(BEAT) >= 2
        assert len(one.found) == 1, "there is nothing new to poll"


@pytest.mark.parametrize("trouble", [{}, {"status": 503}, {"status": 401}])
async def test_an_api_that_is_away_at_first(trouble: dict[str, Json]) -> None:
    prefect = FakePrefect(major=3)
    prefect.trouble(times=10_000, **trouble)
    async with keeping(pool_settings(), prefect=prefect) as one:
        await asyncio.sleep(600)
        assert (one.served().state, one.problems()) == (PoolState.UNKNOWN, {})
        assert one.served().service is None
        assert one.lines.events("error") == []
        prefect.troubles.clear()
        await asyncio.sleep(60)
        assert one.served().open


# --- reload -----------------------------------------------------------------------------------------------------


async def test_pools_come_and_go_with_the_files() -> None:
    async with keeping(pool_settings("a"), pool_settings("b")) as one:
        await one.want(pool_settings("b"), pool_settings("c"))
        assert intervals(one) == {"a": GOODBYE_S, "b": HEARTBEAT_S, "c": HEARTBEAT_S}
        assert [served.name for served in one.table.entries() if served.open] == ["b", "c"]
        copied(one.prefect)
        await asyncio.sleep(600)
        assert not [asked for asked in copied(one.prefect) if "/work_pools/a" in asked]
        assert one.pulse.stuck() == ()
        await one.want(pool_settings("a"), pool_settings("b"))
        assert intervals(one) == {"a": HEARTBEAT_S, "b": HEARTBEAT_S, "c": GOODBYE_S}


async def test_a_changed_pool_is_looked_at_at_once() -> None:
    async with keeping(pool_settings(queues=("high",))) as one:
        await one.want(pool_settings(queues=("high", "low"), limit=3))
        assert [queue.name for queue in one.served().queues] == ["high", "low"]
        assert one.served().caps.runs == 3
        assert intervals(one) == {"etl": HEARTBEAT_S}, "nobody has said goodbye"


async def test_a_pool_that_changes_while_it_is_looked_at() -> None:
    """What was asked for the old settings says nothing of the new ones."""
    prefect = FakePrefect(major=3)
    prefect.pools.create_pool("etl", type="docker")
    async with keeping(prefect=prefect) as one:
        one.table.want([pool_settings(type="process")])
        while "GET /work_pools/etl" not in prefect.asked:
            await asyncio.sleep(0)
        prefect.pools.delete_pool("etl")
        prefect.pools.create_pool("etl")
        one.table.want([pool_settings(limit=3)])
        await asyncio.sleep(1)
        assert (one.served().state, one.served().caps.runs) == (PoolState.READY, 3)
        assert one.lines.events("error") == []


async def test_a_reload_with_the_api_away() -> None:
    async with keeping(pool_settings("a")) as one:
        one.prefect.trouble(times=10_000)
        await one.want(pool_settings("b"))
        await asyncio.sleep(60)
        assert one.table.names() == {"b"}
        one.prefect.troubles.clear()
        await asyncio.sleep(60)
        assert intervals(one)["b"] == HEARTBEAT_S


# --- drain ------------------------------------------------------------------------------------------------------


async def test_a_host_that_drains_is_offline_until_the_drain_ends() -> None:
    async with keeping(pool_settings()) as one:
        one.wakes.draining.set()
        one.wakes.pools.set()
        await asyncio.sleep(1)
        assert intervals(one) == {"etl": GOODBYE_S}
        copied(one.prefect)
        await asyncio.sleep(600)
        assert one.asked(BEAT) == 0, "one goodbye is enough"
        one.wakes.draining.clear()
        one.wakes.pools.set()
        await asyncio.sleep(1)
        assert intervals(one) == {"etl": HEARTBEAT_S}


async def test_a_host_that_starts_while_it_drains_is_not_announced() -> None:
    async with keeping() as one:
        one.wakes.draining.set()
        await one.want(pool_settings())
        assert intervals(one) == {}


# --- the end ----------------------------------------------------------------------------------------------------


async def test_a_host_that_stops_says_goodbye_to_all() -> None:
    async with keeping(pool_settings("a"), pool_settings("b")) as one:
        await one.keeper.stop()
        assert intervals(one) == {"a": GOODBYE_S, "b": GOODBYE_S}
        copied(one.prefect)
        await asyncio.sleep(300)
        one.table.want([pool_settings("a"), pool_settings("c")])
        await asyncio.sleep(300)
        assert copied(one.prefect) == [], "a reload meanwhile takes nothing back"


async def test_a_goodbye_that_nobody_hears_takes_seconds() -> None:
    async with keeping(*(pool_settings(f"p-{n}") for n in range(20))) as one:
        hold = asyncio.Event()
        heartbeats = one.keeper._heartbeats
        heartbeats._api = _Deaf(heartbeats._api, hold)  # type: ignore[assignment]
        before = one.loop.time()
        await one.keeper.stop()
        assert 1.0 < one.loop.time() - before < 10.0


@pytest.mark.parametrize("refused", ["POST /work_pools/a/workers/heartbeat", "POST /events"])
async def test_a_goodbye_that_is_refused_is_said_again(refused: str) -> None:
    """Or the API would show as degraded until the failure is forgotten: no later request is of this kind."""
    async with keeping(pool_settings("a"), pool_settings("b")) as one:
        await asyncio.sleep(1)
        one.prefect.trouble(refused, status=503, times=2)
        await one.want(pool_settings("b"))
        await asyncio.sleep(4)
        assert one.prefect.troubles[0].seen == 2
        assert intervals(one) == {"a": GOODBYE_S, "b": HEARTBEAT_S}
        assert one.prefect.pools.events[-1]["event"] == "prefect.worker.stopped"
        assert one.api.health.condition is ApiCondition.OK


@pytest.mark.parametrize(("status", "at_most_s"), [(503, 10.0), (None, 1.0), (401, 1.0)])
async def test_a_goodbye_that_is_refused_for_ever_holds_up_no_stop(status: int | None, at_most_s: float) -> None:
    async with keeping(*(pool_settings(f"p-{n}") for n in range(20))) as one:
        one.prefect.trouble("/workers/heartbeat", status=status, times=10**9)
        before = one.loop.time()
        await one.keeper.stop()
        assert one.loop.time() - before < at_most_s


class _Deaf:
    """An API whose heartbeats are never answered."""

    def __init__(self, api: Json, hold: asyncio.Event) -> None:
        self._api = api
        self._hold = hold

    def __getattr__(self, name: str) -> Json:
        return getattr(self._api, name)

    async def heartbeat(self, pool: str, *, worker: str, interval_s: int) -> bool:
        return await self._hold.wait()


# --- --once -----------------------------------------------------------------------------------------------------


async def test_without_pools_nobody_waits_for_them() -> None:
    async with keeping() as one:
        assert one.keeper.tried.is_set()
        assert copied(one.prefect) == []


async def test_whoever_polls_once_waits_until_every_pool_was_looked_at() -> None:
    prefect = FakePrefect(major=3)
    prefect.trouble("/work_pools/b", times=10_000)
    async with keeping(pool_settings("a"), pool_settings("b", create=False), prefect=prefect) as one:
        await asyncio.sleep(600)
        assert not one.keeper.tried.is_set(), "it would find nothing, and say that all is done"
        prefect.troubles.clear()
        await asyncio.sleep(60)
        assert one.keeper.tried.is_set(), "b cannot be served, and that is an answer"
        assert list(one.problems()) == ["b"]
