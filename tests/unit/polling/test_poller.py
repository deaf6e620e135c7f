"""poller.py by a clock that jumps: when the API is asked, and when a run starts without asking it."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from runnerd.core.settings import LateSettings
from runnerd.prefect_api.answers import Page
from runnerd.prefect_api.reading import PAGE
from tests.kits.engine import BOUND, POLL, at, polling, polls, running, start, started_at
from tests.kits.nouns import Json, copied

# --- when the API is asked --------------------------------------------------------------------------------------


async def test_an_hour_of_polling_is_one_request_a_poll(tmp_path: Path) -> None:
    async with polling(tmp_path, watching=True) as (engine, _):
        for number in range(50):
            engine.deploy(f"d{number}")
        engine.wakes.poll_now()
        await asyncio.sleep(3595)
        asked = copied(engine.prefect)
        assert asked.count("GET /admin/version") == 1
        assert asked.count(POLL) == 360
        assert asked.count(BOUND) == 12, "every five minutes: runs without a process"
        assert set(asked) == {"GET /admin/version", "GET /csrf-token", POLL, BOUND}, "nothing is asked of no runs"


async def test_without_deployments_nothing_is_asked(tmp_path: Path) -> None:
    async with polling(tmp_path, watching=True) as (engine, _):
        await asyncio.sleep(3600)
        assert copied(engine.prefect) == []


async def test_a_deployment_in_a_work_pool_is_left_to_the_workers_of_its_pool(tmp_path: Path) -> None:
    async with polling(tmp_path) as (engine, _):
        in_pool, own = engine.deploy("in-pool", work_pool="etl"), engine.deploy("own")
        left, taken = engine.add_run(in_pool), engine.add_run(own)
        engine.wakes.poll_now()
        await asyncio.sleep(60)
        assert (engine.phase(left), engine.phase(taken) is None) == (None, False)
        assert engine.registry.ids() == [in_pool, own] and engine.registry.own_ids() == [own]


async def test_the_interval_is_jittered_and_read_anew(tmp_path: Path) -> None:
    async with polling(tmp_path, poll_interval_s=100.0) as (engine, _):
        engine.deploy()
        engine.wakes.poll_now()
        await asyncio.sleep(1)
        assert polls(engine) == 1
        await asyncio.sleep(98)
        assert polls(engine) == 0
        engine.settings = replace(engine.settings, api=replace(engine.settings.api, poll_interval_s=1.0))
        await asyncio.sleep(11.5)
        assert polls(engine) == 11


async def test_a_kick_asks_at_once(tmp_path: Path) -> None:
    async with polling(tmp_path, poll_interval_s=1000.0) as (engine, _):
        deployment_id = engine.deploy()
        engine.wakes.poll_now()
        await asyncio.sleep(5)
        run_id = engine.add_run(deployment_id)
        await asyncio.sleep(5)
        assert engine.phase(run_id) is None
        copied(engine.prefect)
        engine.wakes.poll_now()
        await started_at(engine, run_id)
        assert at(engine) < 10.1
        assert polls(engine) == 1
        await asyncio.sleep(500)
        assert polls(engine) == 0


async def test_a_run_made_for_this_host_needs_no_poll(tmp_path: Path) -> None:
    async with polling(tmp_path, poll_interval_s=1000.0) as (engine, _):
        deployment_id = engine.deploy()
        engine.wakes.poll_now()
        await asyncio.sleep(5)
        run_id = engine.add_run(deployment_id)
        copied(engine.prefect)
        found = await engine.api.read_run(run_id)
        assert found is not None
        engine.poller.put_on_offer(found)
        await started_at(engine, run_id)
        assert polls(engine) == 0


async def test_a_run_that_is_made_while_a_list_is_on_its_way_stays_known(tmp_path: Path) -> None:
    """The list was made before the run: a status that comes after it must not say that there is no such run."""
    async with polling(tmp_path, runs=1) as (engine, _):
        deployment_id = engine.deploy()
        await start(engine, deployment_id)
        answer, answered = engine.api.scheduled_runs, asyncio.Event()

        async def slow(**asking: Json) -> Page:
            page = await answer(**asking)
            answered.set()
            await asyncio.sleep(2.0)
            return page

        engine.api.scheduled_runs = slow  # type: ignore[method-assign]
        await answered.wait()
        run_id = engine.add_run(deployment_id)
        found = await engine.api.read_run(run_id)
        assert found is not None
        engine.poller.put_on_offer(found)
        await asyncio.sleep(3.0)
        assert run_id in engine.poller.on_offer.runs and run_id in engine.poller.on_offer.waiting
        engine.prefect.set_state(run_id, "CANCELLED", force=True)
        await asyncio.sleep(20.0)
        assert engine.poller.on_offer.runs == {}, "the next list has every run that is still to be offered"


# --- when a run starts ------------------------------------------------------------------------------------------


async def test_a_run_that_falls_due_starts_prefetch_before_and_without_a_request(tmp_path: Path) -> None:
    async with polling(tmp_path, poll_interval_s=1000.0, prefetch_s=20.0) as (engine, _):
        deployment_id = engine.deploy()
        soon, later, beyond = (engine.add_run(deployment_id, in_s=after) for after in (50.0, 400.0, 1200.0))
        engine.wakes.poll_now()
        await asyncio.sleep(1)
        assert (len(engine.poller.on_offer.runs), polls(engine)) == (2, 1)
        assert await started_at(engine, soon) == pytest.approx(50.0 - 20.0, abs=0.2)
        assert await started_at(engine, later) == pytest.approx(400.0 - 20.0, abs=0.2)
        assert polls(engine) == 0
        assert engine.phase(beyond) is None


async def test_runs_start_on_time_while_a_poll_that_an_event_calls_for_has_to_wait(tmp_path: Path) -> None:
    async with polling(tmp_path, poll_interval_s=100.0, poll_burst_per_s=0.01, prefetch_s=20.0, runs=1) as (
        engine,
        spawner,
    ):
        deployment_id = engine.deploy()
        soon, later = (engine.add_run(deployment_id, in_s=after) for after in (50.0, 51.0))
        engine.wakes.poll_now()
        await asyncio.sleep(1)
        assert polls(engine) == 1
        engine.wakes.poll_now()
        assert await started_at(engine, soon) == pytest.approx(50.0 - 20.0, abs=0.2)
        await asyncio.sleep(10)
        engine.prefect.set_state(soon, "COMPLETED")
        spawner.exit(soon)
        assert await started_at(engine, later) == pytest.approx(50.0 - 20.0 + 10.0, abs=0.5)
        assert polls(engine) == 0


@pytest.mark.parametrize("policy", ["run", "skip", "latest"])
async def test_a_retry_in_a_process_elsewhere_is_left_to_it(tmp_path: Path, policy: str) -> None:
    """Another host may have this process: it is neither claimed nor skipped as late, and named once it is overdue."""
    async with polling(tmp_path, late=LateSettings(after_s=60.0, policy=policy)) as (engine, _):
        run_id = engine.add_run(engine.deploy(), in_s=-3600.0)
        engine.prefect.runs[run_id]["empirical_policy"] |= {"retries": 1, "retry_type": "in_process"}
        engine.prefect.runs[run_id]["state"]["name"] = "AwaitingRetry"
        engine.wakes.poll_now()
        await asyncio.sleep(120.0)
        assert engine.phase(run_id) is None and engine.prefect.state_of(run_id) == "SCHEDULED"
        assert engine.poller.on_offer.waiting == {run_id: "its next attempt is a retry inside the process that failed"}
        (problem,) = engine.problems.all()
        assert f"cancel it in Prefect, or start it here: runnerctl execute {run_id}" in problem.message


async def test_a_free_slot_takes_the_next_without_a_request(tmp_path: Path) -> None:
    async with polling(tmp_path, runs=1, poll_interval_s=1000.0) as (engine, spawner):
        deployment_id = engine.deploy()
        ids = [engine.add_run(deployment_id, in_s=-10.0 + n) for n in range(3)]
        engine.wakes.poll_now()
        for number, run_id in enumerate(ids):
            await started_at(engine, run_id)
            assert list(engine.poller.on_offer.waiting.values()) == ["limits.runs 1 is reached"] * (2 - number)
            engine.prefect.set_state(run_id, "COMPLETED")
            spawner.exit(run_id)
            await engine.until_done(run_id)
        assert at(engine) < 5.0
        assert polls(engine) == 1


async def test_start_rate_spreads_the_starts(tmp_path: Path) -> None:
    async with polling(tmp_path, start_rate=0.5, poll_interval_s=1000.0) as (engine, _):
        deployment_id = engine.deploy()
        ids = [engine.add_run(deployment_id) for _ in range(5)]
        engine.wakes.poll_now()
        starts = [await started_at(engine, run_id) for run_id in ids]
        gaps = [after - before for before, after in itertools.pairwise(starts)]
        assert gaps == pytest.approx([2.0] * 4, abs=0.2)
        assert polls(engine) == 1


async def test_a_claim_taken_by_another_host_is_not_asked_for_at_every_poll(tmp_path: Path) -> None:
    async with polling(tmp_path) as (engine, _):
        deployment_id = engine.deploy()
        run_id = engine.add_run(deployment_id)
        run = engine.prefect.runs[run_id]
        # A server that goes on offering what it does not give, as one with a full concurrency limit does.
        engine.prefect.trouble("set_state", status=409, times=1000)
        engine.wakes.poll_now()
        await asyncio.sleep(600)
        asked = copied(engine.prefect)
        assert asked.count(f"POST /flow_runs/{run['id']}/set_state") == 5
        assert asked.count(POLL) == 60


# --- full pages -------------------------------------------------------------------------------------------------


async def test_a_full_page_of_blocked_runs_does_not_hide_the_others(tmp_path: Path) -> None:
    async with polling(tmp_path) as (engine, _):
        busy = engine.deploy("busy", run={"limit": 1})
        blocked = [engine.add_run(busy, in_s=-1000.0 + n) for n in range(PAGE + 50)]
        await asyncio.sleep(11)
        assert running(engine, blocked[0])
        other = engine.add_run(engine.deploy("other"))
        await started_at(engine, other)
        copied(engine.prefect)
        await asyncio.sleep(100)
        assert polls(engine) <= 20, "two requests a poll at most"
        assert len(engine.supervisor.records()) == 2


async def test_a_full_page_of_one_blocked_deployment_alone(tmp_path: Path) -> None:
    async with polling(tmp_path) as (engine, _):
        busy = engine.deploy("busy", run={"limit": 1})
        for n in range(PAGE + 50):
            engine.add_run(busy, in_s=-1000.0 + n)
        await asyncio.sleep(21)
        copied(engine.prefect)
        await asyncio.sleep(100)
        assert polls(engine) == 10


# --- late runs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("policy", "states"), [("run", "ppp"), ("skip", "ccp"), ("latest", "cpp")])
async def test_late_runs(tmp_path: Path, policy: str, states: str) -> None:
    late = LateSettings(after_s=600.0, policy=policy)  # type: ignore[arg-type]
    async with polling(tmp_path, late=late) as (engine, _):
        deployment_id = engine.deploy()
        ids = [engine.add_run(deployment_id, in_s=-ago) for ago in (7200.0, 3600.0, 60.0)]
        by_hand = engine.add_run(deployment_id, in_s=-9000.0, auto_scheduled=False)
        await asyncio.sleep(15)
        kinds = {"p": "PENDING", "c": "CANCELLED"}
        assert [engine.prefect.state_of(run_id) for run_id in ids] == [kinds[letter] for letter in states]
        assert running(engine, by_hand)
        for run_id, letter in zip(ids, states, strict=True):
            if letter == "c":
                message = engine.prefect.runs[run_id]["state"]["message"]
                assert message.endswith(f"late.policy is {policy}")
