"""intervals.py on a jumping clock: each source is polled at its own interval, and all where something is new."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from runnerd.prefect_api.answers import Page
from tests.kits.engine import POLL, Engine, at, polling, started_at
from tests.kits.nouns import Json, copied
from tests.kits.pools import end, kick, offered_by, pool_settings, pooled, with_pools


def polls_of(engine: Engine) -> tuple[int, int, int]:
    """How often the own deployments and the pools a and b were polled since the last look."""
    asked = copied(engine.prefect)
    return asked.count(POLL), asked.count(offered_by("a")), asked.count(offered_by("b"))


async def test_two_pools_with_different_intervals_are_polled_at_theirs(tmp_path: Path) -> None:
    async with polling(tmp_path, prefect=with_pools(a={}, b={})) as (engine, _):
        engine.deploy()
        kick(engine, pool_settings("a", poll_interval_s=2.0), pool_settings("b", poll_interval_s=60.0))
        await asyncio.sleep(3599)
        assert polls_of(engine) == (360, 1800, 60)


async def test_a_pool_without_an_interval_has_the_host_s(tmp_path: Path) -> None:
    async with polling(tmp_path, prefect=with_pools(a={}, b={}), poll_interval_s=20.0) as (engine, _):
        kick(engine, pool_settings("a"), pool_settings("b", poll_interval_s=5.0))
        await asyncio.sleep(3599)
        assert polls_of(engine) == (0, 180, 720)
        engine.settings = replace(engine.settings, api=replace(engine.settings.api, poll_interval_s=5.0))
        await asyncio.sleep(20)
        polls_of(engine)
        await asyncio.sleep(100)
        assert polls_of(engine) == (0, 20, 20), "read anew"


async def test_a_wake_polls_all(tmp_path: Path) -> None:
    async with polling(tmp_path, prefect=with_pools(a={}, b={}), poll_interval_s=1000.0) as (engine, _):
        engine.deploy()
        kick(engine, pool_settings("a", poll_interval_s=2000.0), pool_settings("b", poll_interval_s=3000.0))
        await asyncio.sleep(5)
        assert polls_of(engine) == (1, 1, 1)
        engine.wakes.poll_now()
        await asyncio.sleep(5)
        assert polls_of(engine) == (1, 1, 1)
        await asyncio.sleep(2990)
        assert polls_of(engine) == (2, 1, 0)


async def test_its_runs_are_listed_one_interval_ahead(tmp_path: Path) -> None:
    """So that each is known at the moment when its start is allowed."""
    async with polling(tmp_path, prefect=with_pools(a={}, b={}), poll_interval_s=10.0) as (engine, _):
        kick(engine, pool_settings("a", poll_interval_s=600.0, prefetch_s=5.0))
        await asyncio.sleep(1)
        run_id = engine.add_run(pooled(engine, "a"), in_s=900.0)
        assert await started_at(engine, run_id) == pytest.approx(901.0 - 5.0, abs=0.3)


@pytest.mark.parametrize("woken", [False, True])
async def test_a_run_is_known_in_time_however_long_the_interval_s_jitter_makes_it(tmp_path: Path, woken: bool) -> None:
    async with polling(tmp_path, prefect=with_pools(a={}), poll_interval_s=10.0, prefetch_s=0.0) as (engine, _):
        engine.jitter, engine.pace.woken = 1.0, woken
        kick(engine, pool_settings("a", prefetch_s=0.0))
        interval_s = 30.0 if woken else 10.0
        own = engine.add_run(engine.deploy(), in_s=1.05 * interval_s)
        pools = engine.add_run(pooled(engine, "a"), in_s=1.05 * interval_s)
        for run_id in (own, pools):
            assert await started_at(engine, run_id) == pytest.approx(1.05 * interval_s, abs=0.2)


async def test_a_pool_that_fails_is_not_polled_more_often_than_the_back_off_allows(tmp_path: Path) -> None:
    async with polling(tmp_path, prefect=with_pools(a={}, b={})) as (engine, _):
        engine.prefect.trouble(offered_by("a"), status=500, times=1_000_000)
        kick(engine, pool_settings("a", poll_interval_s=2.0), pool_settings("b", poll_interval_s=60.0))
        await asyncio.sleep(3599)
        own, a, b = polls_of(engine)
        assert own == 0 and a <= 1800 + 60 and 55 <= b <= 61


async def test_a_free_slot_that_the_api_counts_polls_the_limited_pool_only(tmp_path: Path) -> None:
    prefect = with_pools(a={"concurrency_limit": 1}, b={})
    async with polling(tmp_path, prefect=prefect, poll_interval_s=1000.0) as (engine, spawner):
        kick(engine, pool_settings("a", poll_interval_s=900.0), pool_settings("b"))
        first, second = (engine.add_run(pooled(engine, "a"), in_s=-10.0 + number) for number in range(2))
        await started_at(engine, first)
        polls_of(engine)
        await end(engine, spawner, first)
        await started_at(engine, second)
        _, a, b = polls_of(engine)
        assert at(engine) < 20.0 and a >= 1 and b == 0


# --- a source that fails ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "trouble", [{"status": 403}, {"status": 500}, {"status": 429, "headers": {"Retry-After": "600"}}]
)
async def test_a_failing_pool_with_a_short_interval_delays_no_other_source(tmp_path: Path, trouble: Json) -> None:
    async with polling(tmp_path, prefect=with_pools(a={}, b={})) as (engine, _):
        deployment = engine.deploy()
        engine.prefect.trouble(offered_by("a"), times=10**9, **trouble)
        kick(engine, pool_settings("a", poll_interval_s=2.0), pool_settings("b", poll_interval_s=60.0))
        await asyncio.sleep(3599)
        own, a, b = polls_of(engine)
        assert (own, b) == (360, 60) and a <= 1800 + 60
        began = at(engine)
        ids = [engine.add_run(deployment, in_s=20.0 + number) for number in range(8)]
        starts = [await started_at(engine, run_id) for run_id in ids]
        assert starts == pytest.approx([began + 10.0 + number for number in range(8)], abs=0.3)


async def test_a_slot_is_given_away_while_a_pool_fails(tmp_path: Path) -> None:
    async with polling(tmp_path, prefect=with_pools(a={}), runs=1) as (engine, spawner):
        deployment = engine.deploy()
        engine.prefect.trouble(offered_by("a"), times=10**9, status=429, headers={"Retry-After": "600"})
        kick(engine, pool_settings("a", poll_interval_s=2.0))
        await asyncio.sleep(30)
        first, second = (engine.add_run(deployment, in_s=-10.0 + number) for number in range(2))
        await started_at(engine, first)
        await asyncio.sleep(15)
        began = at(engine)
        await end(engine, spawner, first)
        await started_at(engine, second)
        assert at(engine) - began < 2.0


@pytest.mark.parametrize("trouble", [{"status": 500}, {"status": 503, "headers": {"Prefect-Maintenance": "true"}}])
@pytest.mark.parametrize("others", [0, 1])
async def test_one_failure_costs_no_long_interval(tmp_path: Path, trouble: Json, others: int) -> None:
    """Whether the pool is alone with its interval or not."""
    async with polling(tmp_path, prefect=with_pools(a={}, b={})) as (engine, _):
        engine.deploy()
        engine.prefect.trouble(offered_by("a"), times=1, **trouble)
        wanted = [pool_settings(name, poll_interval_s=3600.0) for name in "ab"[: 1 + others]]
        kick(engine, *wanted)
        run_id = engine.add_run(pooled(engine, "a"))
        assert await started_at(engine, run_id) < 25.0
        await asyncio.sleep(3000)
        assert polls_of(engine)[1] == 2, "and then it has its interval again"


async def test_a_failing_pool_does_not_make_another_of_its_interval_wait_for_the_back_off(tmp_path: Path) -> None:
    async with polling(tmp_path, prefect=with_pools(a={}, b={})) as (engine, _):
        engine.prefect.trouble(offered_by("a"), times=10**9, status=429, headers={"Retry-After": "600"})
        kick(engine, pool_settings("a"), pool_settings("b"))
        await asyncio.sleep(3599)
        assert polls_of(engine) == (0, 6, 360), "what is not wanted before a time is not sent before"


# --- slots that the API counts ----------------------------------------------------------------------------------


async def test_a_slot_that_is_freed_during_a_poll_of_another_source(tmp_path: Path) -> None:
    async with polling(tmp_path, prefect=with_pools(a={"concurrency_limit": 1})) as (engine, spawner):
        engine.deploy()
        answer, asked = engine.api.scheduled_runs, asyncio.Event()

        async def slow(**asking: Json) -> Page:
            asked.set()
            await asyncio.sleep(2.0)
            return await answer(**asking)

        engine.api.scheduled_runs = slow  # type: ignore[method-assign]
        kick(engine, pool_settings("a", poll_interval_s=3600.0))
        first, second = (engine.add_run(pooled(engine, "a"), in_s=-10.0 + number) for number in range(2))
        await started_at(engine, first)
        await asyncio.sleep(30)
        asked.clear()
        await asked.wait()
        await asyncio.sleep(0.5)
        began = at(engine)
        await end(engine, spawner, first)
        await started_at(engine, second)
        assert at(engine) - began < 5.0


async def test_a_freed_slot_of_a_pool_that_fails_is_left_to_the_back_off(tmp_path: Path) -> None:
    async with polling(tmp_path, prefect=with_pools(a={"concurrency_limit": 1})) as (engine, spawner):
        engine.deploy()
        kick(engine, pool_settings("a", poll_interval_s=3600.0))
        first = engine.add_run(pooled(engine, "a"))
        await started_at(engine, first)
        engine.prefect.trouble(offered_by("a"), times=10**9, status=429, headers={"Retry-After": "300"})
        await end(engine, spawner, first)
        await asyncio.sleep(30)
        polls_of(engine)
        await asyncio.sleep(1000)
        own, a, _ = polls_of(engine)
        assert own == 100 and 2 <= a <= 4
