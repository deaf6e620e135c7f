"""lateness.py: runs that fell due while nobody looked, through the poller and by a clock that jumps."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest

from runnerd.core.settings import LateSettings
from runnerd.prefect_api.reading import PAGE
from tests.kits.engine import POLL, Engine, polling, polls, running, started_at
from tests.kits.nouns import copied

SKIP, LATEST = LateSettings(after_s=600.0, policy="skip"), LateSettings(after_s=600.0, policy="latest")


def states(engine: Engine, run_ids: list[str]) -> list[str]:
    return [engine.prefect.state_of(run_id) for run_id in run_ids]


@pytest.mark.parametrize("late", [SKIP, LATEST])
async def test_who_waits_here_for_a_slot_never_becomes_late(tmp_path: Path, late: LateSettings) -> None:
    async with polling(tmp_path, runs=1, late=late) as (engine, spawner):
        deployment_id = engine.deploy()
        ids = [engine.add_run(deployment_id, in_s=float(n)) for n in range(3)]
        await started_at(engine, ids[0])
        await asyncio.sleep(3 * late.after_s)
        assert states(engine, ids[1:]) == ["SCHEDULED"] * 2
        for run_id, then in itertools.pairwise(ids):
            engine.prefect.set_state(run_id, "COMPLETED")
            spawner.exit(run_id)
            await started_at(engine, then)


async def test_polls_that_events_put_far_apart_make_nobody_late(tmp_path: Path) -> None:
    late = LateSettings(after_s=15.0, policy="skip")
    async with polling(tmp_path, runs=1, late=late) as (engine, _):
        deployment_id = engine.deploy()
        ids = [engine.add_run(deployment_id, in_s=float(n)) for n in range(2)]
        engine.pace.woken = True
        await started_at(engine, ids[0])
        await asyncio.sleep(200)
        engine.pace.woken = False
        await asyncio.sleep(200)
        assert engine.prefect.state_of(ids[1]) == "SCHEDULED"


async def test_polls_that_the_api_refuses_make_nobody_late(tmp_path: Path) -> None:
    """Nor does any number of events that call for a poll while the API wants none."""
    async with polling(tmp_path, runs=1, late=SKIP) as (engine, _):
        deployment_id = engine.deploy()
        ids = [engine.add_run(deployment_id, in_s=float(n)) for n in range(2)]
        await started_at(engine, ids[0])
        await asyncio.sleep(SKIP.after_s + 100)
        engine.prefect.trouble(POLL, status=429, headers={"Retry-After": "60"})
        for _ in range(20):
            engine.wakes.poll_now()
            await asyncio.sleep(2)
        await asyncio.sleep(120)
        assert engine.prefect.troubles[0].seen == 1
        assert engine.prefect.state_of(ids[1]) == "SCHEDULED"


async def test_who_waited_here_is_late_after_a_long_outage(tmp_path: Path) -> None:
    async with polling(tmp_path, runs=1, late=SKIP) as (engine, _):
        deployment_id = engine.deploy()
        ids = [engine.add_run(deployment_id, in_s=float(n)) for n in range(2)]
        await started_at(engine, ids[0])
        engine.prefect.down = True
        await asyncio.sleep(300)
        engine.prefect.down = False
        await asyncio.sleep(60)
        assert engine.prefect.state_of(ids[1]) == "SCHEDULED"
        engine.prefect.down = True
        await asyncio.sleep(700)
        engine.prefect.down = False
        await engine.until(lambda: engine.prefect.state_of(ids[1]) == "CANCELLED")


async def test_a_host_that_drains_does_not_look(tmp_path: Path) -> None:
    """It lets go of nothing, and what fell due meanwhile is late when it ends."""
    async with polling(tmp_path, late=SKIP) as (engine, _):
        deployment_id = engine.deploy()
        engine.drain.begin(reason="maintenance", timeout_s=None)
        before, meanwhile = engine.add_run(deployment_id, in_s=-9000.0), engine.add_run(deployment_id)
        await asyncio.sleep(3000)
        assert states(engine, [before, meanwhile]) == ["SCHEDULED"] * 2
        assert set(engine.poller.on_offer.waiting) == {before, meanwhile}
        engine.drain.end()
        recent = engine.add_run(deployment_id)
        await started_at(engine, recent)
        await engine.until(lambda: states(engine, [before, meanwhile]) == ["CANCELLED"] * 2)


@pytest.mark.parametrize("late", [SKIP, LATEST])
async def test_more_late_runs_than_fit_in_an_answer(tmp_path: Path, late: LateSettings) -> None:
    """`latest` means the newest of all, not the newest of each page."""
    async with polling(tmp_path, late=late) as (engine, _):
        minutely, hourly = engine.deploy("minutely"), engine.deploy("hourly")
        late_ids = [engine.add_run(minutely, in_s=-60.0 * (2 * PAGE + 50 - n)) for n in range(2 * PAGE + 30)]
        other = [engine.add_run(hourly, in_s=-3600.0 * (3 - n)) for n in range(3)]
        await asyncio.sleep(15)
        kept = 1 if late is LATEST else 0
        assert states(engine, late_ids) == ["CANCELLED"] * (len(late_ids) - kept) + ["PENDING"] * kept
        assert states(engine, other) == ["CANCELLED"] * (3 - kept) + ["PENDING"] * kept


async def test_what_is_on_time_does_not_wait_until_all_late_ones_are_gone(tmp_path: Path) -> None:
    async with polling(tmp_path, late=SKIP, runs=1) as (engine, spawner):
        deployment_id = engine.deploy()
        late_ids = [engine.add_run(deployment_id, in_s=-9000.0 - n) for n in range(50)]
        first, second = engine.add_run(deployment_id), engine.add_run(deployment_id)
        seen = []

        def note(_: object) -> None:
            if running(engine, first):
                engine.prefect.set_state(first, "COMPLETED")
                spawner.exit(first)
            if running(engine, second):
                seen.append(states(engine, late_ids).count("SCHEDULED"))

        engine.feed.subscribe(note)
        await engine.until(lambda: "SCHEDULED" not in states(engine, late_ids))
        assert seen[0] > 0


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "COMPLETED", "CANCELLED"])
async def test_a_late_run_that_somebody_else_has_meanwhile_is_left_alone(tmp_path: Path, state: str) -> None:
    async with polling(tmp_path, late=SKIP) as (engine, _):
        run_id = engine.add_run(engine.deploy(), in_s=-9000.0)
        taken = engine.add_run(engine.deploy("other"), in_s=-8000.0)
        read = engine.api.read_run

        async def overtaken(asked: str) -> object:
            if asked == taken and engine.prefect.state_of(taken) == "SCHEDULED":
                engine.prefect.set_state(taken, state)
            return await read(asked)

        engine.api.read_run = overtaken  # type: ignore[method-assign, assignment]
        await engine.until(lambda: engine.prefect.state_of(run_id) == "CANCELLED")
        await asyncio.sleep(60)
        assert engine.prefect.state_of(taken) == state
        assert [line["run"] for line in engine.lines.all() if line["event"] == "late run skipped"] == [run_id]


async def test_one_that_cannot_be_let_go_is_tried_now_and_then_and_said_once(tmp_path: Path) -> None:
    async with polling(tmp_path, late=SKIP) as (engine, _):
        stuck = engine.add_run(engine.deploy(), in_s=-9000.0)
        engine.prefect.trouble(f"{stuck}/set_state", status=409, times=10**9)
        await asyncio.sleep(3600)
        assert 3 < copied(engine.prefect).count(f"POST /flow_runs/{stuck}/set_state") < 10
        assert engine.lines.events("error") == ["cannot skip a late run"]
        engine.prefect.troubles.clear()
        await engine.until(lambda: engine.prefect.state_of(stuck) == "CANCELLED")


async def test_an_answer_that_does_not_accept_is_no_success(tmp_path: Path) -> None:
    async with polling(tmp_path, late=SKIP) as (engine, _):
        stuck = engine.add_run(engine.deploy(), in_s=-9000.0)
        body = {"status": "REJECT", "state": engine.prefect.runs[stuck]["state"], "details": {"reason": "not now"}}
        engine.prefect.trouble(f"{stuck}/set_state", status=200, body=body, times=2)
        await engine.until(lambda: engine.prefect.state_of(stuck) == "CANCELLED")
        events = [line["event"] for line in engine.lines.all() if line.get("run") == stuck]
        assert events == ["cannot skip a late run", "late run skipped"]


async def test_the_watchdog_is_content_while_many_are_let_go(tmp_path: Path) -> None:
    async with polling(tmp_path, late=SKIP) as (engine, _):
        deployment_id = engine.deploy()
        ids = [engine.add_run(deployment_id, in_s=-9000.0 - n) for n in range(PAGE)]
        propose = engine.api.propose

        async def slow(*args: object, **more: object) -> object:
            await asyncio.sleep(10)
            assert engine.pulse.stuck() == ()
            return await propose(*args, **more)  # type: ignore[arg-type]

        engine.api.propose = slow  # type: ignore[method-assign, assignment]
        await engine.until(lambda: "SCHEDULED" not in states(engine, ids))


async def test_a_server_that_goes_on_offering_what_is_gone(tmp_path: Path) -> None:
    async with polling(tmp_path, late=SKIP) as (engine, _):
        deployment_id = engine.deploy()
        for number in range(PAGE):
            engine.add_run(deployment_id, in_s=-9000.0 - number)
        page = [dict(run) for run in engine.prefect.runs.values()]
        engine.prefect.trouble("get_scheduled_flow_runs", status=200, body=page, times=10**9)
        await asyncio.sleep(60)
        assert polls(engine) <= 2 * 7
        engine.prefect.troubles.clear()
        run_id = engine.add_run(deployment_id)
        await started_at(engine, run_id)
