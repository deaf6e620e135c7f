"""parents.py: whose children wait is asked once, and only where children wait."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.kits.engine import fake_engine, start
from tests.kits.nouns import copied

ASK = "POST /task_runs/filter"


async def test_a_waiting_run_is_looked_up_once_and_forgotten(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, runs=1) as (engine, _):
        parent, deployment = await start(engine), engine.deploy("child")
        plain = engine.add_run(deployment)
        await engine.poller.poll_once()
        assert plain in engine.poller.on_offer.waiting
        assert ASK not in engine.prefect.asked
        child = engine.prefect.child_of(parent, engine.add_run(deployment))
        for _ in range(3):
            await engine.poller.poll_once()
        assert engine.poller.parents.parent_of(child) == parent
        assert engine.poller.parents.parent_of(plain) is None
        assert copied(engine.prefect).count(ASK) == 1
        engine.prefect.set_state(child, "CANCELLED")
        await engine.poller.poll_once()
        assert engine.poller.parents.parent_of(child) is None


async def test_a_parent_that_is_no_flow_run_is_not_asked_for_again(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, runs=1) as (engine, _):
        child = engine.prefect.child_of(await start(engine), engine.add_run(engine.deploy("child")))
        engine.prefect.task_runs.clear()
        for _ in range(3):
            await engine.poller.poll_once()
        assert engine.poller.parents.parent_of(child) is None
        assert engine.prefect.asked.count(ASK) == 1


async def test_a_failed_look_up_costs_no_poll_and_is_repeated(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, runs=1) as (engine, _):
        parent = await start(engine)
        child = engine.prefect.child_of(parent, engine.add_run(engine.deploy("child")))
        engine.prefect.trouble(ASK, status=500, times=1)
        offered = await engine.poller.poll_once()
        assert child in offered.skipped
        assert engine.poller.parents.parent_of(child) is None
        await asyncio.sleep(1)
        await engine.poller.poll_once()
        assert engine.poller.parents.parent_of(child) == parent
