"""pools.py: requests about queues and their changes, against both fake servers."""

from __future__ import annotations

from runnerd.control.fields import QUEUE_FIELDS
from runnerd.core.prefect import AGENT, AGENT_POOL
from tests.kits.asked_pools import (
    asked,
    create,
    create_queue,
    no,
)
from tests.kits.fakes.fake_prefect import FakePrefect


async def test_queues_of_every_pool_and_of_one(prefect: FakePrefect) -> None:
    await create(prefect, "gpu")
    await create(prefect)
    made = await create_queue(prefect, "etl", "urgent", priority=1, concurrency_limit=2, description="now")
    assert set(made) == QUEUE_FIELDS
    assert (made["pool"], made["priority"], made["concurrency_limit"], made["description"]) == ("etl", 1, 2, "now")
    everywhere = [(queue["pool"], queue["name"]) for queue in await asked(prefect, lambda pools: pools.queues(None))]
    assert everywhere == [("etl", "urgent"), ("etl", "default"), ("gpu", "default")]
    assert [queue["name"] for queue in await asked(prefect, lambda pools: pools.queues("gpu"))] == ["default"]


async def test_changes_to_a_queue_leave_the_rest(prefect: FakePrefect) -> None:
    await create(prefect)
    await create_queue(prefect, "etl", "slow", concurrency_limit=2)
    for changes in ({"paused": True}, {"priority": 7}, {"concurrency_limit": None}, {"description": "new"}):
        changed = await asked(prefect, lambda pools, it=changes: pools.change_queue("etl", "slow", it))  # type: ignore[misc]
        assert changes.items() <= changed.items()
    assert (changed["paused"], changed["priority"]) == (True, 7)
    assert await asked(prefect, lambda pools: pools.queue("etl", "slow")) == changed


async def test_a_queue_that_is_not_there_or_there_already(prefect: FakePrefect) -> None:
    await create(prefect)
    for what in (
        lambda pools: pools.queue("etl", "x"),
        lambda pools: pools.preview("etl", "x", hours=1),
        lambda pools: pools.change_queue("etl", "x", {"paused": True}),
        lambda pools: pools.delete_queue("etl", "x"),
    ):
        no(await asked(prefect, what), 404, "'x'", "'etl'", "runnerctl queue ls")
    no(await create_queue(prefect, "etl", "default"), 409, "'default'", "'etl'")


async def test_a_default_queue_stays(prefect: FakePrefect) -> None:
    await create(prefect)
    await create_queue(prefect, "etl", "urgent")
    no(await asked(prefect, lambda pools: pools.delete_queue("etl", "default")), 422, "default queue")
    assert (await asked(prefect, lambda pools: pools.delete_queue("etl", "urgent")))["name"] == "urgent"
    assert [queue.name for queue in prefect.pools.queues("etl")] == ["default"]


async def test_the_pool_of_queues_without_one_comes_with_the_first(prefect: FakePrefect) -> None:
    no(await asked(prefect, lambda pools: pools.queue(AGENT_POOL, "q")), 404, AGENT_POOL, "--pool")
    assert (await create_queue(prefect, AGENT_POOL, "q"))["pool"] == AGENT_POOL
    assert prefect.pools.read_pool(AGENT_POOL).type == AGENT
