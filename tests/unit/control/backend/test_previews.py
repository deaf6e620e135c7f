"""previews.py: which runs a pool is about to offer, against both fake servers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from runnerd.control.contract import OFFER_FIELDS
from runnerd.core.prefect import AGENT_POOL
from runnerd.prefect_api.reading import PAGE
from tests.kits.asked_pools import (
    asked,
    create,
    preview,
)
from tests.kits.fakes.fake_prefect import FakePrefect


@pytest.fixture
def busy(prefect: FakePrefect) -> FakePrefect:
    """A pool with a queue that goes first."""
    prefect.pools.create_pool("etl")
    prefect.pools.create_queue("etl", "urgent", priority=1)
    return prefect


def add_run(prefect: FakePrefect, name: str, *, queue: str | None = None, in_min: float = 0) -> str:
    deployment_id = prefect.pools.add_deployment("etl", queue=queue, name=f"of {name}")
    return prefect.pools.add_run(deployment_id, due=datetime.now(UTC) + timedelta(minutes=in_min), name=name)


async def test_a_preview_in_the_order_of_delivery_with_what_is_late(busy: FakePrefect) -> None:
    add_run(busy, "late", in_min=-5)
    add_run(busy, "soon", queue="urgent", in_min=30)
    add_run(busy, "tomorrow", in_min=24 * 60)
    found = await preview(busy)
    assert [set(run) for run in found["runs"]] == [OFFER_FIELDS, OFFER_FIELDS]
    told = [(run["name"], run["queue"], run["deployment"], run["late"]) for run in found["runs"]]
    assert told == [("soon", "urgent", "of soon", False), ("late", "default", "of late", True)]
    assert (found["paused"], found["whole"]) == ([], True)
    assert [run["name"] for run in (await preview(busy, hours=48))["runs"]] == ["soon", "late", "tomorrow"]


async def test_a_preview_of_one_queue_and_of_every_pool(busy: FakePrefect) -> None:
    await create(busy, "another")
    for queue in ("urgent", "default"):
        add_run(busy, f"run of {queue}", queue=queue)
    assert [run["name"] for run in (await preview(busy, "etl", "urgent"))["runs"]] == ["run of urgent"]
    assert [(run["pool"], run["name"]) for run in (await preview(busy, None))["runs"]] == [
        ("etl", "run of urgent"),
        ("etl", "run of default"),
    ]
    assert (await preview(busy, "another"))["runs"] == []


async def test_a_preview_says_what_is_paused(busy: FakePrefect) -> None:
    add_run(busy, "run", queue="urgent")
    busy.pools.update_queue("etl", "urgent", {"is_paused": True})
    found = await preview(busy)
    assert (found["runs"], found["paused"]) == ([], ["etl/urgent"])
    assert (await preview(busy, "etl", "default"))["paused"] == []
    busy.pools.update_pool("etl", {"is_paused": True})
    assert (await preview(busy))["paused"] == ["etl"]


async def test_a_preview_says_when_there_may_be_more(busy: FakePrefect) -> None:
    deployment_id = busy.pools.add_deployment("etl")
    for _ in range(PAGE + 1):
        busy.pools.add_run(deployment_id)
    found = await preview(busy)
    assert (len(found["runs"]), found["whole"]) == (PAGE, False)


async def test_a_preview_of_a_queue_that_takes_runs_by_tag(prefect: FakePrefect) -> None:
    queue = prefect.pools.add_tag_queue("gpu", tags=["gpu"])
    deployment_id = prefect.pools.add_deployment(None, name="anywhere")
    prefect.pools.add_run(deployment_id, tags=["gpu"], name="tagged")
    prefect.pools.add_run(deployment_id, name="plain")
    found = (await preview(prefect, AGENT_POOL, queue.name))["runs"]
    assert [(run["name"], run["pool"], run["queue"]) for run in found] == [("tagged", AGENT_POOL, "gpu")]
    assert (await asked(prefect, lambda pools: pools.queue(AGENT_POOL, "gpu")))["filter"]["tags"] == ["gpu"]


async def test_a_preview_outlives_a_deployment(busy: FakePrefect) -> None:
    add_run(busy, "orphan")
    busy.deployments.clear()
    (run,) = (await preview(busy))["runs"]
    assert (run["name"], run["deployment"]) == ("orphan", None)
    assert run["deployment_id"]
