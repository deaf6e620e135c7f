"""pool_pages.py: limits that the API enforces, and the pages behind runs that may not start."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.kits.engine import POLL, at, polling, running, started_at
from tests.kits.nouns import Json, copied
from tests.kits.pools import asked, end, kick, offered_by, pool_settings, pooled, serve, with_pools

# --- pools that come and go -------------------------------------------------------------------------------------


async def test_what_a_pool_had_on_offer_goes_with_it(tmp_path: Path) -> None:
    """Nobody could say how to start it any more."""
    async with polling(tmp_path, prefect=with_pools(a={}, b={}), runs=1, poll_interval_s=100.0) as (engine, spawner):
        kick(engine, pool_settings("a"), pool_settings("b"))
        first = engine.add_run(pooled(engine, "b"), in_s=-100.0)
        left = engine.add_run(pooled(engine, "a"), in_s=-50.0)
        await started_at(engine, first)
        assert left in engine.poller.on_offer.runs
        serve(engine.pools, engine.prefect, pool_settings("b"))
        await end(engine, spawner, first)
        await asyncio.sleep(300)
        assert (engine.prefect.state_of(left), engine.poller.on_offer.runs) == ("SCHEDULED", {})
        engine.pools.want([])
        await asyncio.sleep(300)
        assert spawner.live() == []


async def test_draining(tmp_path: Path) -> None:
    async with polling(tmp_path, prefect=with_pools(etl={})) as (engine, _):
        deployment_id = pooled(engine)
        ids = [engine.add_run(deployment_id, in_s=-1000.0 + n) for n in range(250)]
        engine.drain.begin(reason="tests", timeout_s=None)
        kick(engine, pool_settings())
        await asyncio.sleep(95)
        assert asked(engine) == 10, "nobody looks past a page of runs that may not start anyway"
        assert set(engine.poller.on_offer.waiting.values()) == {engine.supervisor.draining}
        engine.drain.end()
        engine.wakes.poll_now()
        await engine.until(lambda: running(engine, ids[9]))
        assert len(engine.supervisor.records()) == 10


@pytest.mark.parametrize("pool", [True, False], ids=["a pool", "own deployments"])
async def test_a_run_that_ended_while_an_older_list_was_on_its_way_is_not_on_offer(tmp_path: Path, pool: bool) -> None:
    """On offer, it would hide how it ended: `status` would show a run that waits, without deployment and flow."""
    async with polling(tmp_path, prefect=with_pools(etl={})) as (engine, spawner):
        api, name = (engine.api.pools, "runs") if pool else (engine.api, "scheduled_runs")
        answer, pages, arrives = getattr(api, name), [], asyncio.Event()

        async def slow(*given: Json, **asking: Json) -> Json:
            pages.append(await answer(*given, **asking))
            if len(pages) == 2:
                await arrives.wait()
                return pages[0]  # the server made it before our claim had reached it
            return pages[-1]

        setattr(api, name, slow)
        run_id = engine.add_run(pooled(engine) if pool else engine.deploy())
        kick(engine, *[pool_settings()] if pool else [])
        await started_at(engine, run_id)
        engine.wakes.poll_now()
        await engine.until(lambda: len(pages) == 2)
        await end(engine, spawner, run_id)
        copied(engine.prefect)
        arrives.set()
        await asyncio.sleep(3)
        assert f"GET /flow_runs/{run_id}" not in copied(engine.prefect), "it was offered, and its state was read"


@pytest.mark.parametrize("trouble", ["away", "own runs", "all runs"])
async def test_an_api_that_is_in_trouble_when_a_drain_ends(tmp_path: Path, trouble: str) -> None:
    """What was found while nobody looked is to be judged by a poll, and that poll has to wait as any other."""
    async with polling(tmp_path, prefect=with_pools(etl={})) as (engine, _):
        run_ids = [engine.add_run(engine.deploy()), engine.add_run(pooled(engine))]
        engine.drain.begin(reason="tests", timeout_s=None)
        kick(engine, pool_settings())
        await asyncio.sleep(15)
        engine.prefect.down = trouble == "away"
        if trouble != "away":
            failing = POLL if trouble == "own runs" else "get_scheduled_flow_runs"
            engine.prefect.trouble(failing, status=500, times=10**9)
        engine.drain.end()
        engine.wakes.poll_now()
        copied(engine.prefect)
        await asyncio.sleep(60)
        assert len(copied(engine.prefect)) < 100
        engine.prefect.down = False
        engine.prefect.troubles.clear()
        for run_id in run_ids:
            await started_at(engine, run_id)


# --- slots ------------------------------------------------------------------------------------------------------


async def test_our_own_limit_holds_over_polls_and_takes_the_next_without_one(tmp_path: Path) -> None:
    async with polling(tmp_path, prefect=with_pools(etl={})) as (engine, spawner):
        kick(engine, pool_settings(limit=2))
        ids = [engine.add_run(pooled(engine), in_s=-10.0 + n) for n in range(4)]
        await asyncio.sleep(35)
        assert spawner.live() == ids[:2]
        assert set(engine.poller.on_offer.waiting.values()) == {"pool etl's limit 2 is reached"}
        copied(engine.prefect)
        await end(engine, spawner, ids[0])
        await started_at(engine, ids[2])
        assert (at(engine) < 36, asked(engine)) == (True, 0)


@pytest.mark.parametrize("of", ["pool", "queue"])
async def test_a_free_slot_that_the_server_counts_is_asked_for(tmp_path: Path, of: str) -> None:
    prefect = with_pools(etl={})
    if of == "pool":
        prefect.pools.update_pool("etl", {"concurrency_limit": 2})
    else:
        prefect.pools.update_queue("etl", "default", {"concurrency_limit": 2})
    async with polling(tmp_path, prefect=prefect, poll_interval_s=1000.0) as (engine, spawner):
        ids = [engine.add_run(pooled(engine), in_s=-100.0 + n) for n in range(9)]
        kick(engine, pool_settings())
        for number in range(8):
            await started_at(engine, ids[number])
            assert len(spawner.live()) <= 2
            if number:
                await end(engine, spawner, ids[number - 1])
        assert at(engine) < 20
        await asyncio.sleep(100)
        assert asked(engine) <= 30, "once a second at most, and only while something ends"


async def test_many_ends_at_once_are_one_question_a_second(tmp_path: Path) -> None:
    prefect = with_pools(etl={"concurrency_limit": 50})
    async with polling(tmp_path, prefect=prefect, runs=100, poll_interval_s=1000.0) as (engine, spawner):
        ids = [engine.add_run(pooled(engine), in_s=-100.0) for _ in range(50)]
        kick(engine, pool_settings())
        await engine.until(lambda: all(running(engine, run_id) for run_id in ids))
        copied(prefect)
        began = at(engine)
        for run_id in ids:
            await end(engine, spawner, run_id)
        assert 2 <= asked(engine) <= at(engine) - began + 1
        await asyncio.sleep(500)
        assert asked(engine) <= 1


async def test_the_end_of_another_run_asks_nobody(tmp_path: Path) -> None:
    prefect = with_pools(counted={"concurrency_limit": 5}, etl={})
    async with polling(tmp_path, prefect=prefect, poll_interval_s=1000.0) as (engine, spawner):
        run_ids = [engine.add_run(engine.deploy()), engine.add_run(pooled(engine))]
        kick(engine, pool_settings("counted"), pool_settings())
        for run_id in run_ids:
            await started_at(engine, run_id)
            await end(engine, spawner, run_id)
        await asyncio.sleep(100)
        assert asked(engine, "counted") == 1


async def test_what_was_offered_a_while_ago_is_not_taken_where_the_server_counts(tmp_path: Path) -> None:
    prefect = with_pools(etl={"concurrency_limit": 1})
    async with polling(tmp_path, prefect=prefect, runs=1) as (engine, spawner):
        own = engine.add_run(engine.deploy(), in_s=-100.0)
        kick(engine, pool_settings())
        await started_at(engine, own)
        deployment_id = pooled(engine)
        ours, elsewhere = (engine.add_run(deployment_id, in_s=-50.0 + n) for n in range(2))
        await asyncio.sleep(15)
        assert engine.poller.on_offer.waiting[ours] == "limits.runs 1 is reached"
        prefect.set_state(elsewhere, "PENDING")
        await end(engine, spawner, own)
        await asyncio.sleep(60)
        assert (spawner.live(), prefect.state_of(ours)) == ([], "SCHEDULED")
        prefect.set_state(elsewhere, "COMPLETED")
        await started_at(engine, ours)


async def test_a_pool_that_the_server_counts_has_its_turn_on_a_full_host(tmp_path: Path) -> None:
    """Its runs cannot be taken the moment a slot is free: the slot waits, or others would always be first."""
    prefect = with_pools(etl={"concurrency_limit": 3})
    async with polling(tmp_path, prefect=prefect, runs=1, poll_interval_s=1000.0) as (engine, spawner):
        own = engine.deploy()
        first = engine.add_run(own, in_s=-100.0)
        ours = engine.add_run(pooled(engine), in_s=-90.0)
        last = engine.add_run(own, in_s=-80.0)
        kick(engine, pool_settings())
        for run_id in (first, ours, last):
            await started_at(engine, run_id)
            assert spawner.live() == [run_id]
            await asyncio.sleep(5)
            await end(engine, spawner, run_id)
        assert at(engine) < 20


async def test_slots_do_not_wait_for_a_pool_that_cannot_be_asked(tmp_path: Path) -> None:
    prefect = with_pools(etl={"concurrency_limit": 3})
    async with polling(tmp_path, prefect=prefect, runs=1) as (engine, spawner):
        own = engine.deploy()
        ids = [engine.add_run(own, in_s=-100.0), engine.add_run(pooled(engine), in_s=-90.0)]
        kick(engine, pool_settings())
        await started_at(engine, ids[0])
        prefect.trouble(offered_by("etl"), status=500, times=10_000)
        last = engine.add_run(own, in_s=-80.0)
        await asyncio.sleep(15)
        await end(engine, spawner, ids[0])
        await started_at(engine, last)


# --- behind a page ----------------------------------------------------------------------------------------------


async def test_thousands_of_runs_that_may_not_start_hide_no_other(tmp_path: Path) -> None:
    prefect = with_pools(etl={"queues": ["low"]})
    async with polling(tmp_path, prefect=prefect) as (engine, spawner):
        busy = pooled(engine)
        blocked = [engine.add_run(busy, in_s=-20_000.0 + n) for n in range(2_500)]
        hidden = [engine.add_run(pooled(engine, queue=queue), in_s=0.0) for queue in ("default", "low")]
        kick(engine, pool_settings(run={"limit": 1}))
        await started_at(engine, blocked[0])
        for run_id in hidden:
            assert await started_at(engine, run_id) < 60.0
        assert len(engine.poller.on_offer.runs) < 500, "not all of them are kept in mind"
        copied(prefect)
        await end(engine, spawner, blocked[0])
        await started_at(engine, blocked[1])
        assert asked(engine) <= 1, "the next of the first page needs no poll"


async def test_what_is_hidden_again_and_again_while_others_start(tmp_path: Path) -> None:
    """Runs are short, so at each poll one of the first page starts; those behind must not wait for all of them."""
    async with polling(tmp_path, prefect=with_pools(etl={})) as (engine, spawner):
        busy = pooled(engine)
        for number in range(450):
            engine.add_run(busy, in_s=-20_000.0 + number)
        hidden = engine.add_run(pooled(engine), in_s=0.0)
        engine.feed.subscribe(lambda record: _end_soon(spawner, record, except_for=hidden))
        kick(engine, pool_settings(run={"limit": 1}))
        assert await started_at(engine, hidden) < 60.0


def _end_soon(spawner: Json, record: Json, *, except_for: str) -> None:
    if record.phase == "running" and record.id != except_for:
        asyncio.get_running_loop().call_later(9.9, lambda: spawner.exit(record.id, code=1))


async def test_a_page_of_runs_that_are_all_due_at_the_same_moment(tmp_path: Path) -> None:
    async with polling(tmp_path, prefect=with_pools(etl={})) as (engine, _):
        busy = pooled(engine)
        for _ in range(450):
            engine.add_run(busy, in_s=-20_000.0)
        hidden = engine.add_run(pooled(engine), in_s=0.0)
        kick(engine, pool_settings(run={"limit": 1}))
        assert await started_at(engine, hidden) < 60.0


async def test_runs_that_may_not_start_behind_slots_that_the_server_counts(tmp_path: Path) -> None:
    """It tells of no more than as many as may start, and all of these are of one deployment."""
    async with polling(tmp_path, prefect=with_pools(etl={"concurrency_limit": 5})) as (engine, spawner):
        busy = pooled(engine)
        for number in range(100):
            engine.add_run(busy, in_s=-20_000.0 + number)
        hidden = engine.add_run(pooled(engine), in_s=0.0)
        kick(engine, pool_settings(run={"limit": 1}))
        assert await started_at(engine, hidden) < 120.0
        assert len(spawner.live()) == 2


async def test_what_is_only_not_due_yet_hides_nothing(tmp_path: Path) -> None:
    prefect = with_pools(etl={"concurrency_limit": 5, "queues": ["low"]})
    async with polling(tmp_path, prefect=prefect) as (engine, _):
        engine.add_run(pooled(engine), in_s=500.0)
        kick(engine, pool_settings(prefetch_s=600.0))
        await asyncio.sleep(95)
        assert asked(engine) == 10


async def test_a_full_host_looks_no_further(tmp_path: Path) -> None:
    async with polling(tmp_path, prefect=with_pools(etl={"queues": ["low"]}), runs=1) as (engine, _):
        deployment_id = pooled(engine)
        for number in range(450):
            engine.add_run(deployment_id, in_s=-1000.0 + number)
        kick(engine, pool_settings())
        await asyncio.sleep(95)
        assert asked(engine) == 10


@pytest.mark.parametrize("what", ["limit", "start_rate", "journal"])
async def test_nor_does_one_that_can_start_none_of_that_pool(tmp_path: Path, what: str) -> None:
    rate = 0.01 if what == "start_rate" else 1000.0
    async with polling(tmp_path, prefect=with_pools(etl={}), start_rate=rate) as (engine, _):
        deployment_id = pooled(engine)
        for number in range(450):
            engine.add_run(deployment_id, in_s=-1000.0 + number)
        if what == "journal":
            engine.journal.close()
        kick(engine, pool_settings(limit=1 if what == "limit" else None))
        await asyncio.sleep(95)
        assert asked(engine) == 10
