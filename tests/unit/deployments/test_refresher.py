"""refresher.py: pauses, deletions and next starts of deployments, at a few requests a minute."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from runnerd.core.prefect import ApiCondition
from runnerd.deployments.refresher import REFRESH_EVERY_S, Refresher
from runnerd.deployments.registrar import Registrar
from runnerd.deployments.registry import EntryState
from tests.kits.engine import Engine, fake_engine
from tests.kits.nouns import URL, copied
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
        assert engine.prefect.asked.count("POST /deployments/filter") == 3, "asked rarely"
        running.cancel()
        await asyncio.wait([running])


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
