"""parents.py: whose children wait is asked once, and only where children wait."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from tests.kits.engine import BOUND, fake_engine, polling, polls, start
from tests.kits.engine_parts import poll_and_look_up
from tests.kits.nouns import copied

ASK = "POST /task_runs/filter"


async def test_a_waiting_run_is_looked_up_once_and_forgotten(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, runs=1) as (engine, _):
        parent, deployment = await start(engine), engine.deploy("child")
        plain = engine.add_run(deployment)
        await poll_and_look_up(engine.poller)
        assert plain in engine.poller.on_offer.waiting
        assert ASK not in engine.prefect.asked
        child = engine.prefect.child_of(parent, engine.add_run(deployment))
        for _ in range(3):
            await poll_and_look_up(engine.poller)
        assert engine.poller.parents.parent_of(child) == parent
        assert engine.poller.parents.parent_of(plain) is None
        assert copied(engine.prefect).count(ASK) == 1
        engine.prefect.set_state(child, "CANCELLED")
        await poll_and_look_up(engine.poller)
        assert engine.poller.parents.parent_of(child) is None


async def test_a_parent_that_is_no_flow_run_is_not_asked_for_again(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, runs=1) as (engine, _):
        child = engine.prefect.child_of(await start(engine), engine.add_run(engine.deploy("child")))
        engine.prefect.task_runs.clear()
        for _ in range(3):
            await poll_and_look_up(engine.poller)
        assert engine.poller.parents.parent_of(child) is None
        assert engine.prefect.asked.count(ASK) == 1


async def test_a_failed_look_up_costs_no_poll_and_is_repeated(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, runs=1) as (engine, _):
        parent = await start(engine)
        child = engine.prefect.child_of(parent, engine.add_run(engine.deploy("child")))
        engine.prefect.trouble(ASK, status=500, times=1)
        offered = await poll_and_look_up(engine.poller)
        assert child in offered.skipped
        assert engine.poller.parents.parent_of(child) is None
        await poll_and_look_up(engine.poller)
        assert copied(engine.prefect).count(ASK) == 1, "it is left alone for a minute"
        await asyncio.sleep(61)
        await poll_and_look_up(engine.poller)
        assert engine.poller.parents.parent_of(child) == parent


async def test_a_look_up_that_hangs_delays_neither_polls_nor_starts(tmp_path: Path) -> None:
    async with polling(tmp_path, runs=2) as (engine, _):
        deployment = engine.deploy("child", run={"limit": 1})
        parent = await start(engine)
        engine.add_run(deployment)
        child = engine.prefect.child_of(parent, engine.add_run(deployment, in_s=1.0))
        asked = 0

        async def hang(_ids: Sequence[str]) -> dict[str, str]:
            nonlocal asked
            asked += 1
            await asyncio.sleep(120)
            raise AssertionError("it was not bounded")

        answer, engine.api.queries.flow_runs_of = engine.api.queries.flow_runs_of, hang  # type: ignore[method-assign]
        engine.wakes.poll_now()
        await asyncio.sleep(5)
        copied(engine.prefect)
        await asyncio.sleep(600)
        assert 58 <= polls(engine) <= 62
        assert 8 <= asked <= 11, "after a failure it is left alone for a minute"
        assert engine.lines.events("error") == [], "a server that is slow is no fault"
        engine.api.queries.flow_runs_of = answer  # type: ignore[method-assign]
        await asyncio.sleep(75)
        assert engine.poller.parents.parent_of(child) == parent


async def test_a_look_up_that_hangs_keeps_no_other_from_being_looked_up(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, runs=1) as (engine, _):
        engine.prefect.child_of(await start(engine), engine.add_run(engine.deploy("child")))

        async def hang(_ids: Sequence[str]) -> dict[str, str]:
            await asyncio.sleep(120)
            raise AssertionError("it was not bounded")

        engine.api.queries.flow_runs_of = hang  # type: ignore[method-assign]
        await poll_and_look_up(engine.poller)
        assert BOUND in engine.prefect.asked
