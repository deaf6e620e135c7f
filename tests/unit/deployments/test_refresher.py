"""refresher.py: pauses, deletions and next starts of deployments, at a few requests a minute."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from runnerd.core.machine import Phase
from runnerd.core.prefect import ApiCondition
from runnerd.core.settings import key_of
from runnerd.deployments.refresher import REFRESH_EVERY_S, Refresher
from runnerd.deployments.registrar import Registrar
from runnerd.deployments.registry import EntryState
from tests.kits.engine import POLL, Engine, fake_engine, running
from tests.kits.nouns import URL, Json, a_record, copied
from tests.kits.registrar import FakeInspector


@asynccontextmanager
async def refreshed(folder: Path) -> AsyncIterator[tuple[Engine, Refresher]]:
    async with fake_engine(folder) as (engine, _):
        registrar = Registrar(
            api=engine.api,
            inspector=FakeInspector(),  # type: ignore[arg-type]
            journal=engine.journal,
            registry=engine.registry,
            url=URL,
            ambient=engine.ambient,
            wakes=engine.wakes,
            problems=engine.problems,
        )
        refresher = Refresher(
            api=engine.api,
            registry=engine.registry,
            registrar=registrar,
            feed=engine.feed,
            wakes=engine.wakes,
            ambient=engine.ambient,
        )
        yield engine, refresher


async def test_the_next_start_and_pauses_of_each(tmp_path: Path) -> None:
    async with refreshed(tmp_path) as (engine, refresher):
        busy, calm, idle = (engine.deploy(name) for name in ("busy", "calm", "idle"))
        for number in range(250):
            engine.add_run(busy, in_s=60.0 + number)
        engine.add_run(calm, in_s=86400.0)
        engine.prefect.deployments[idle]["paused"] = True
        await refresher.refresh()
        now = engine.now()
        found = {one.deployment.name: one for one in engine.registry.entries()}
        assert found["busy"].next_run_at == now + timedelta(seconds=60)
        assert found["calm"].next_run_at == now + timedelta(days=1), "a busy one must not hide it"
        assert (found["idle"].next_run_at, found["idle"].state) == (None, EntryState.PAUSED)


async def test_a_pause_takes_runs_off_offer_at_once(tmp_path: Path) -> None:
    """The server deletes them: the claim of one that stayed on offer would fail."""
    async with refreshed(tmp_path) as (engine, refresher):
        paused = engine.deploy()
        await refresher.refresh()
        engine.wakes.poll.clear()
        await refresher.refresh()
        assert not engine.wakes.poll.is_set()
        engine.prefect.deployments[paused]["paused"] = True
        await refresher.refresh()
        assert engine.wakes.poll.is_set()


@pytest.mark.parametrize(("in_s", "is_polled"), [(15.0, True), (300.0, False), (4000.0, False)])
async def test_a_start_that_the_scheduler_creates_before_the_known_ones_is_polled_for(
    tmp_path: Path, in_s: float, is_polled: bool
) -> None:
    """As after a deployment was resumed, seconds after the event of that: polls may be 45 s apart."""
    async with refreshed(tmp_path) as (engine, refresher):
        deployment = engine.deploy()
        engine.add_run(deployment, in_s=3600.0)
        refreshing = asyncio.create_task(refresher.run())
        await asyncio.sleep(200)
        engine.wakes.poll.clear()
        engine.wakes.refresh.set()
        await asyncio.sleep(1)
        engine.add_run(deployment, in_s=in_s)
        await asyncio.sleep(9)
        assert not engine.wakes.poll.is_set()
        await asyncio.sleep(60)
        assert engine.wakes.poll.is_set() == is_polled
        engine.wakes.poll.clear()
        await asyncio.sleep(1000)
        assert not engine.wakes.poll.is_set(), "once"
        refreshing.cancel()
        await asyncio.wait([refreshing])


def next_run_at(engine: Engine) -> datetime | None:
    (entry,) = engine.registry.entries()
    return entry.next_run_at


async def test_the_start_after_a_run_that_was_taken_is_shown_at_once(tmp_path: Path) -> None:
    async with refreshed(tmp_path) as (engine, refresher):
        deployment = engine.deploy()
        first, _ = (engine.add_run(deployment, in_s=in_s) for in_s in (5.0, 3600.0))
        await refresher.refresh()
        now = engine.now()
        assert next_run_at(engine) == now + timedelta(seconds=5)
        copied(engine.prefect)
        engine.offer(first)
        await engine.until(lambda: running(engine, first))
        assert next_run_at(engine) == now + timedelta(hours=1)
        assert not [asked for asked in copied(engine.prefect) if asked == POLL], "from what was listed before"
        assert not engine.wakes.refresh.is_set(), "the start after it is known"


async def test_after_the_last_start_there_is_none(tmp_path: Path) -> None:
    async with refreshed(tmp_path) as (engine, refresher):
        run_id = engine.add_run(engine.deploy())
        await refresher.refresh()
        assert next_run_at(engine) is not None
        engine.offer(run_id)
        await engine.until(lambda: running(engine, run_id))
        assert next_run_at(engine) is None


async def test_a_start_that_is_not_known_to_be_the_last_stays_until_the_api_is_asked(tmp_path: Path) -> None:
    async with refreshed(tmp_path) as (engine, refresher):
        calm, busy = engine.deploy("calm"), engine.deploy("busy")
        run_id = engine.add_run(calm, in_s=1.0)
        for number in range(250):
            engine.add_run(busy, in_s=60.0 + number)
        await refresher.refresh()
        engine.offer(run_id)
        await engine.until(lambda: running(engine, run_id))
        found = {one.deployment.name: one.next_run_at for one in engine.registry.entries()}
        assert found["calm"] is not None
        await refresher.refresh()
        found = {one.deployment.name: one.next_run_at for one in engine.registry.entries()}
        assert found["calm"] is None


async def test_a_run_that_starts_while_the_list_is_on_its_way_is_not_the_next(tmp_path: Path) -> None:
    async with refreshed(tmp_path) as (engine, refresher):
        deployment = engine.deploy()
        first, _ = (engine.add_run(deployment, in_s=in_s) for in_s in (5.0, 3600.0))
        later = engine.now() + timedelta(hours=1)
        listed = engine.api.scheduled_runs

        async def start_meanwhile(**given: Json) -> Json:
            found = await listed(**given)
            engine.offer(first)
            await engine.until(lambda: running(engine, first))
            return found

        engine.api.scheduled_runs = start_meanwhile  # type: ignore[method-assign]
        await refresher.refresh()
        assert next_run_at(engine) == later


async def test_a_host_with_nothing_to_poll_knows_how_the_api_is(tmp_path: Path) -> None:
    async with refreshed(tmp_path) as (engine, refresher):
        assert engine.api.health.condition is ApiCondition.UNREACHABLE
        running = asyncio.create_task(refresher.run())
        await asyncio.sleep(1)
        assert engine.api.health.condition is ApiCondition.OK
        engine.prefect.down = True
        await asyncio.sleep(REFRESH_EVERY_S)
        assert engine.api.health.condition is ApiCondition.UNREACHABLE
        engine.prefect.down = False
        await asyncio.sleep(REFRESH_EVERY_S)
        assert engine.api.health.condition is ApiCondition.OK
        assert engine.prefect.asked.count("GET /admin/version") == 3, "asked rarely"
        running.cancel()
        await asyncio.wait([running])


async def test_a_host_that_only_serves_pools_is_asked_for_nothing_more(tmp_path: Path) -> None:
    async with refreshed(tmp_path) as (engine, refresher):
        keeping = asyncio.create_task(refresher.run())
        await asyncio.sleep(1)
        copied(engine.prefect)
        for number in range(600):
            await engine.api.pools.read_pool("etl")  # as the pool's keeper does
            of_pool = str(uuid.uuid4()) if number % 2 else None
            engine.feed.publish(replace(a_record(f"run {number}"), phase=Phase.STARTING, deployment_id=of_pool))
            assert not engine.wakes.refresh.is_set()
            assert not refresher._started
            await asyncio.sleep(30)
        assert set(copied(engine.prefect)) == {"GET /work_pools/etl"}
        keeping.cancel()
        await asyncio.wait([keeping])


async def test_runs_that_have_started_are_forgotten_with_the_last_deployment(tmp_path: Path) -> None:
    async with refreshed(tmp_path) as (engine, refresher):
        run_id = engine.add_run(engine.deploy())
        await refresher.refresh()
        engine.offer(run_id)
        await engine.until(lambda: running(engine, run_id))
        assert refresher._started == {run_id}
        (entry,) = engine.registry.entries()
        engine.registry.remove(key_of(entry.deployment))
        await refresher.refresh()
        assert (refresher._started, refresher._starts) == (set(), {})


async def test_one_that_a_list_lacks_is_not_taken_for_deleted(tmp_path: Path) -> None:
    async with refreshed(tmp_path) as (engine, refresher):
        there, odd, deleted = (engine.deploy(name) for name in ("there", "odd", "deleted"))
        del engine.prefect.deployments[deleted]
        engine.prefect.trouble("POST /deployments/filter", status=200, body=[engine.prefect.deployments[there], {}])
        engine.prefect.trouble(f"GET /deployments/{odd}", status=200, body={"id": odd})
        await refresher.refresh()
        assert {one.deployment.name for one in engine.registry.entries() if one.deployment_id is None} == {"deleted"}
        events = engine.lines.events("warning")
        assert events[0].startswith("left out of an answer of the API")
        assert events[1:] == ["a deployment was deleted in the API; registering it again"]


@pytest.mark.parametrize("woken_every_s", [None, 1])
async def test_it_costs_a_few_requests_a_minute_however_often_it_is_woken(
    tmp_path: Path, woken_every_s: int | None
) -> None:
    async with refreshed(tmp_path) as (engine, refresher):
        engine.deploy()
        keeping = asyncio.create_task(refresher.run())
        for _ in range(600):
            await asyncio.sleep(1)
            if woken_every_s:
                engine.wakes.refresh.set()
            assert engine.pulse.stuck() == ()
        rounds = copied(engine.prefect).count("POST /deployments/filter")
        assert rounds == pytest.approx(600 / (10 if woken_every_s else REFRESH_EVERY_S), abs=1)
        keeping.cancel()
        await asyncio.wait([keeping])


@pytest.mark.parametrize("status", [503, 401, 422])
async def test_what_cannot_be_asked_is_asked_later(tmp_path: Path, status: int) -> None:
    async with refreshed(tmp_path) as (engine, refresher):
        engine.add_run(engine.deploy(), in_s=3600.0)
        engine.prefect.trouble("", status=status, times=20)
        keeping = asyncio.create_task(refresher.run())
        await asyncio.sleep(100 * REFRESH_EVERY_S)
        assert not keeping.done()
        (entry,) = engine.registry.entries()
        assert entry.next_run_at is not None
        keeping.cancel()
        await asyncio.wait([keeping])
