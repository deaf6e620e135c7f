"""previews.py: which runs a pool is about to offer, against both fake servers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from runnerd.control.backend.previews import LIMITS_CHECKED_MAX
from runnerd.control.fields import OFFER_FIELDS
from runnerd.core.prefect import AGENT_POOL
from runnerd.prefect_api.reading import PAGE
from tests.kits.asked_pools import (
    asked,
    create,
    create_queue,
    preview,
)
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.fakes.old_prefect import Prefect21421
from tests.kits.nouns import Json, copied


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


def waits(found: Json) -> list[tuple[str, str | None]]:
    return [(run["name"], run["waiting"]) for run in found["runs"]]


async def test_a_preview_lists_what_waits_because_of_a_pause(busy: FakePrefect) -> None:
    add_run(busy, "run", queue="urgent")
    add_run(busy, "other", in_min=30)
    busy.pools.update_queue("etl", "urgent", {"is_paused": True})
    found = await preview(busy)
    assert waits(found) == [("other", None), ("run", "queue urgent is paused")], "what is not delivered comes last"
    assert found["paused"] == ["etl/urgent"]
    assert waits(await preview(busy, "etl", "urgent")) == [("run", "queue urgent is paused")]
    assert (await preview(busy, "etl", "default"))["paused"] == []
    busy.pools.update_pool("etl", {"is_paused": True})
    found = await preview(busy)
    assert waits(found) == [("run", "pool etl is paused"), ("other", "pool etl is paused")]
    assert found["paused"] == ["etl"]


async def test_a_preview_lists_what_waits_because_of_a_limit(busy: FakePrefect) -> None:
    running = add_run(busy, "running", queue="urgent")
    add_run(busy, "urgent-1", queue="urgent")
    add_run(busy, "urgent-2", queue="urgent", in_min=5)
    add_run(busy, "later", in_min=10)
    busy.set_state(running, "PENDING")
    busy.set_state(running, "RUNNING")
    busy.pools.update_queue("etl", "urgent", {"concurrency_limit": 2})
    told = ("urgent-2", "queue urgent's concurrency limit 2 is reached")
    assert waits(await preview(busy)) == [("urgent-1", None), ("later", None), told]
    busy.pools.update_pool("etl", {"concurrency_limit": 2})
    assert waits(await preview(busy)) == [
        ("urgent-1", None),
        told,
        ("later", "pool etl's concurrency limit 2 is reached"),
    ]


async def test_a_preview_is_no_poll(busy: FakePrefect) -> None:
    add_run(busy, "run", queue="urgent")
    await preview(busy)
    await preview(busy, "etl", "urgent")
    assert not [path for path in busy.asked if "get_scheduled_flow_runs" in path or "get_runs" in path]
    for queue in ("urgent", "default"):
        assert (await asked(busy, lambda pools, queue=queue: pools.queue("etl", queue)))["last_polled_at"] is None


async def test_a_preview_names_the_deployments_that_create_no_runs(busy: FakePrefect) -> None:
    add_run(busy, "run")
    (deployment,) = busy.deployments.values()
    assert (await preview(busy))["paused_deployments"] == []
    deployment["paused"] = True
    assert (await preview(busy))["paused_deployments"] == ["of run"]


async def test_a_server_that_cannot_list_paused_deployments_has_its_runs_listed() -> None:
    old = Prefect21421()
    old.pools.create_pool("etl")
    add_run(old, "run")
    found = await preview(old)
    assert (waits(found), found["paused_deployments"]) == ([("run", None)], None)


async def test_slots_are_counted_only_where_runs_wait(busy: FakePrefect) -> None:
    for number in range(30):
        await create_queue(busy, "etl", f"q{number}", concurrency_limit=1)
    add_run(busy, "run", queue="q7")
    copied(busy)
    found = await preview(busy)
    assert copied(busy).count("POST /flow_runs/count") == 1
    assert (waits(found), found["unchecked_limits"]) == ([("run", None)], [])


async def test_of_very_many_limits_the_first_are_checked_and_the_others_named(busy: FakePrefect) -> None:
    for number in range(LIMITS_CHECKED_MAX + 2):
        await create_queue(busy, "etl", f"q{number:02}", concurrency_limit=1, priority=100 + number)
        add_run(busy, f"run {number:02}", queue=f"q{number:02}")
    copied(busy)
    found = await preview(busy)
    assert copied(busy).count("POST /flow_runs/count") == LIMITS_CHECKED_MAX
    assert found["unchecked_limits"] == [f"etl/q{number}" for number in (LIMITS_CHECKED_MAX, LIMITS_CHECKED_MAX + 1)]


async def test_what_only_its_own_process_can_go_on_with_is_in_no_preview(busy: FakePrefect) -> None:
    busy.runs[add_run(busy, "bound")]["empirical_policy"] = {"retry_type": "in_process"}
    assert (await preview(busy))["runs"] == []


async def test_of_very_many_runs_those_of_the_first_queue_are_listed_first(busy: FakePrefect) -> None:
    deployment_id = busy.pools.add_deployment("etl")
    for _ in range(PAGE + 1):
        busy.pools.add_run(deployment_id)
    add_run(busy, "first", queue="urgent", in_min=30)
    found = await preview(busy)
    assert (found["runs"][0]["name"], len(found["runs"]), found["whole"]) == ("first", PAGE, False)


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
