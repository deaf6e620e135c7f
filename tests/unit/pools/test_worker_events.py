"""worker_events.py: the events of Prefect's own worker and runner, for automations."""

from __future__ import annotations

import asyncio

import pytest

from runnerd.core.machine import Intent, Phase
from runnerd.core.prefect import StateType
from runnerd.core.process import Exit, Identity
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.nouns import NOON, Json, a_record
from tests.kits.pools import HOST, keeping, pool_settings, with_pools

RUN = "11111111-1111-4111-8111-111111111111"
STARTED = {"identity": Identity(boot_id="b", pid=4711, start_ticks=1), "started_at": NOON, "tags": ("gpu",)}


def emitted(prefect: FakePrefect) -> list[str]:
    return [event["event"] for event in prefect.pools.events]


def related(event: Json) -> dict[str, Json]:
    """Its related resources by role."""
    return {each["prefect.resource.role"]: each for each in event["related"]}


async def test_the_life_of_a_worker() -> None:
    async with keeping(pool_settings(), prefect=with_pools(etl={})) as one:
        await asyncio.sleep(300)
        assert emitted(one.prefect) == ["prefect.worker.started"], "once, not with each heartbeat"
        started = one.prefect.pools.events[0]
        assert started["resource"]["prefect.resource.name"] == HOST
        assert started["resource"]["prefect.resource.id"] == f"prefect.worker.process.{HOST}"
        assert related(started)["work-pool"]["prefect.resource.name"] == "etl"
        await one.keeper.stop()
        assert emitted(one.prefect)[1:] == ["prefect.worker.stopped"]
        assert one.prefect.pools.events[1]["follows"] == started["id"]


async def test_the_life_of_a_pool_s_run() -> None:
    async with keeping(pool_settings(), prefect=with_pools(etl={})) as one:
        record = a_record(RUN, pool="etl", queue="default", phase=Phase.RUNNING, **STARTED)
        for _ in range(2):  # as an adopting daemon announces it again: the id is the same, and Prefect drops the second
            one.feed.publish(record)
        one.feed.publish(a_record(RUN, pool="etl", phase=Phase.DONE, exit=Exit(signal=9), **STARTED))
        await asyncio.sleep(5)
        submitted, again, executed = one.prefect.pools.events[1:]
        assert submitted["event"] == "prefect.worker.submitted-flow-run" and submitted["id"] == again["id"]
        assert {role: each["prefect.resource.id"] for role, each in related(submitted).items()} == {
            "flow-run": f"prefect.flow-run.{RUN}",
            "deployment": "prefect.deployment.d-1",
            "work-pool": f"prefect.work-pool.{one.prefect.pools.pools['etl']['id']}",
            "work-queue": f"prefect.work-queue.{one.served().queues[0].id}",
            "tag": "prefect.tag.gpu",
        }
        assert (executed["event"], executed["follows"]) == ("prefect.worker.executed-flow-run", submitted["id"])
        assert related(executed)["flow-run"]["prefect.infrastructure.status-code"] == "-9"


@pytest.mark.parametrize("intent", [Intent.CANCEL, Intent.EVICT])
async def test_a_cancelled_run_of_an_own_deployment(intent: Intent) -> None:
    async with keeping(prefect=FakePrefect(major=3)) as one:
        one.feed.publish(a_record(RUN, phase=Phase.DONE, intent=intent, api_state=StateType.CANCELLED))
        await asyncio.sleep(5)
        assert emitted(one.prefect) == ["prefect.runner.cancelled-flow-run"] * (intent is Intent.CANCEL)


@pytest.mark.parametrize("status", [500, 403])
async def test_events_that_the_api_refuses_hold_up_no_later_ones(status: int) -> None:
    prefect = with_pools(etl={})
    prefect.trouble("POST /events", status=status, times=7)
    async with keeping(pool_settings(), prefect=prefect) as one:
        await asyncio.sleep(60)
        for _ in range(3):
            one.feed.publish(a_record(RUN, pool="etl", phase=Phase.RUNNING, **STARTED))
        await asyncio.sleep(5)
        assert emitted(prefect) == ["prefect.worker.submitted-flow-run"], "the first after 5 failures, two after 1"
        (line,) = one.lines.events("warning")
        assert line.startswith("cannot send the event prefect.worker.started; dropping it")


async def test_prefect_2_has_no_events() -> None:
    async with keeping(pool_settings(), prefect=FakePrefect(major=2)) as one:
        await asyncio.sleep(60)
        assert emitted(one.prefect) == []
