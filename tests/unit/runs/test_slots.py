"""supervisor.py: which runs take up slots of the host, and which only wait for the API's answer."""

from __future__ import annotations

import asyncio
from pathlib import Path

from runnerd.control.backend.documents import limits_document
from tests.kits.engine import at, fake_engine, polling, running, started_at
from tests.kits.nouns import flow_run


async def test_a_cancel_that_the_api_does_not_accept_takes_no_slot(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, runs=1) as (engine, _):
        deployment_id = engine.deploy(tags=("db",))
        stuck, other = engine.add_run(deployment_id), engine.add_run(deployment_id)
        engine.prefect.trouble(f"{stuck}/set_state", status=409, times=10**9)
        assert engine.supervisor.cancel_offer(flow_run(engine.prefect, stuck))
        await asyncio.sleep(60.0)
        assert engine.phase(stuck) == "claiming"
        assert limits_document(engine.supervisor.records(), runs=1, tags={"db": 1}) == {
            "runs": {"used": 0, "max": 1},
            "tags": {"db": {"used": 0, "max": 1}},
        }
        assert engine.offer(other) == (other,)
        await engine.until(lambda: running(engine, other))


async def test_a_claim_that_is_cancelled_gives_its_slot_to_the_next_run(tmp_path: Path) -> None:
    async with polling(tmp_path, runs=1) as (engine, _):
        deployment_id = engine.deploy()
        stuck = engine.add_run(deployment_id, in_s=-30.0)
        engine.prefect.trouble(f"{stuck}/set_state", status=503, times=10**9)
        await engine.until(lambda: engine.phase(stuck) == "claiming")
        other = engine.add_run(deployment_id)
        await asyncio.sleep(60.0)
        assert engine.phase(other) is None
        before = at(engine)
        engine.supervisor.cancel([stuck])
        await started_at(engine, other)
        assert at(engine) - before < 1.0, "without a poll"
        assert engine.phase(stuck) == "claiming"


async def test_surplus_runs_whose_cancel_hangs_are_no_reason_to_cancel_more(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        deployment_id = engine.deploy(concurrency_limit=1, collision_strategy="CANCEL_NEW")
        first, stuck, later = (engine.add_run(deployment_id) for _ in range(3))
        engine.supervisor.server_cancels = False
        engine.prefect.trouble(f"{stuck}/set_state", status=409, times=10**9)
        assert engine.offer(first, stuck) == (stuck, first)
        await engine.until(lambda: running(engine, first))
        engine.prefect.set_state(first, "COMPLETED")
        spawner.exit(first)
        await engine.until_done(first)
        assert engine.phase(stuck) == "claiming"
        assert engine.offer(later) == (later,)
        await engine.until(lambda: running(engine, later))


async def test_only_runs_that_take_a_slot_are_said_to_hold_it(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, runs=1) as (engine, _):
        deployment_id = engine.deploy()
        stuck, first, later = (engine.add_run(deployment_id) for _ in range(3))
        engine.prefect.trouble(f"{stuck}/set_state", status=409, times=10**9)
        assert engine.supervisor.cancel_offer(flow_run(engine.prefect, stuck))
        assert engine.supervisor.holders_of(flow_run(engine.prefect, later)) == ()
        assert engine.offer(first) == (first,)
        await engine.until(lambda: running(engine, first))
        assert engine.phase(stuck) == "claiming"
        assert engine.supervisor.holders_of(flow_run(engine.prefect, later)) == (first,)
