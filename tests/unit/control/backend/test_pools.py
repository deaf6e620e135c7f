"""pools.py: requests about work pools and their changes, against both fake servers."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from runnerd.control.backend.pools import PoolsBackend
from runnerd.control.contract import Refused
from runnerd.control.fields import POOL_FIELDS
from runnerd.core.prefect import AGENT, NewQueue
from tests.kits.asked_pools import (
    OWN,
    TEMPLATE,
    asked,
    create,
    create_queue,
    no,
)
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.nouns import Json

# --- creating pools -------------------------------------------------------------------------------------------


async def test_a_new_pool_is_of_type_process_and_has_the_template_of_its_type(prefect: FakePrefect) -> None:
    made = await create(prefect)
    assert set(made) == POOL_FIELDS | {"created"}
    assert (made["name"], made["type"], made["created"], made["served"]) == ("etl", "process", True, False)
    assert prefect.pools.read_pool("etl").base_job_template == TEMPLATE


async def test_what_is_said_of_a_new_pool(prefect: FakePrefect) -> None:
    about = {"type": "docker", "description": "for images", "concurrency_limit": 0}
    made = await create(prefect, "served", base_job_template=TEMPLATE, is_paused=True, **about)
    assert {**about, "paused": True}.items() <= made.items()
    assert made["served"] is True
    assert prefect.pools.read_pool("served").base_job_template == TEMPLATE


async def test_an_unknown_type_needs_a_template_of_its_own(prefect: FakePrefect) -> None:
    no(await create(prefect, type="nix"), 404, "'nix'", "docker, process")
    assert prefect.pools.pools == {}
    assert (await create(prefect, type="nix", base_job_template=OWN))["type"] == "nix"


async def test_a_pool_for_agents_has_an_empty_template() -> None:
    prefect = FakePrefect(major=2)
    prefect.pools.add_worker_type(AGENT, "prefect", {})
    assert (await create(prefect, type=AGENT))["type"] == AGENT


async def test_a_pool_is_created_once(prefect: FakePrefect) -> None:
    await create(prefect, description="the first")
    no(await create(prefect, description="the second"), 409, "'etl'", "--update")
    assert prefect.pools.read_pool("etl").description == "the first"


async def test_an_update_makes_a_pool_what_a_new_one_would_be(prefect: FakePrefect) -> None:
    await create(prefect, type="docker", base_job_template=TEMPLATE, description="old", concurrency_limit=5)
    made = await create(prefect, is_paused=True, update=True)
    after = {"type": "docker", "paused": True, "description": None, "concurrency_limit": None, "created": False}
    assert after.items() <= made.items()
    assert prefect.pools.read_pool("etl").base_job_template == OWN


async def test_an_update_cannot_change_the_type_and_creates_what_is_missing(prefect: FakePrefect) -> None:
    assert (await create(prefect, update=True))["created"] is True
    no(await create(prefect, type="docker", update=True), 409, "'process'", "'docker'")
    assert (await create(prefect, type="process", update=True))["created"] is False


async def test_what_the_server_will_not_have(prefect: FakePrefect) -> None:
    no(await create(prefect, "prefect-mine"), 422, "Prefect's own")
    no(await create(prefect, "a/b"), 422)
    no(await create(prefect, base_job_template={"variables": {}}), 422, "job_configuration")
    assert prefect.pools.pools == {}


# --- a server in trouble --------------------------------------------------------------------------------------


async def test_a_server_that_was_too_busy_to_say_yes_made_it_once(prefect: FakePrefect) -> None:
    prefect.trouble("POST /work_pools/", status=503, after=True)
    assert (await create(prefect))["created"] is True
    prefect.trouble("POST /work_pools/etl/queues", status=503, after=True)
    assert (await create_queue(prefect, "etl", "urgent"))["name"] == "urgent"
    assert [queue.name for queue in prefect.pools.queues("etl")] == ["default", "urgent"]


async def test_a_server_that_was_too_busy_to_say_yes_deleted_it(prefect: FakePrefect) -> None:
    await create(prefect)
    await create_queue(prefect, "etl", "urgent")
    prefect.trouble("DELETE", status=503, after=True, times=1)
    assert (await asked(prefect, lambda pools: pools.delete_queue("etl", "urgent")))["name"] == "urgent"
    prefect.trouble("DELETE", status=503, after=True, times=1)
    assert (await asked(prefect, lambda pools: pools.delete_pool("etl")))["name"] == "etl"
    assert prefect.pools.pools == {}


async def test_an_absent_server_is_told_at_once(prefect: FakePrefect) -> None:
    prefect.down = True
    no(await asked(prefect, lambda pools: pools.pools()), 503, "runnerctl status")
    assert len(prefect.asked) == 1


# --- looking at pools and changing them -----------------------------------------------------------------------


async def test_pools_by_name(prefect: FakePrefect) -> None:
    assert await asked(prefect, lambda pools: pools.pools()) == []
    for name in ("served", "etl"):
        await create(prefect, name)
    pools = await asked(prefect, lambda pools: pools.pools())
    assert [set(pool) for pool in pools] == [POOL_FIELDS, POOL_FIELDS]
    assert [(pool["name"], pool["served"]) for pool in pools] == [("etl", False), ("served", True)]


async def test_one_pool_with_everything_in_it(prefect: FakePrefect) -> None:
    await create(prefect)
    await create_queue(prefect, "etl", "urgent", priority=1)
    prefect.pools.heartbeat("etl", worker="w", interval_s=30)
    pool = await asked(prefect, lambda pools: pools.pool("etl"))
    assert set(pool) == POOL_FIELDS | {"created_at", "updated_at", "base_job_template", "queues", "workers"}
    assert pool["base_job_template"] == TEMPLATE
    assert [(queue["name"], queue["default"]) for queue in pool["queues"]] == [("urgent", False), ("default", True)]
    assert [(worker["name"], worker["status"]) for worker in pool["workers"]] == [("w", "ONLINE")]
    assert pool["workers"][0]["last_heartbeat_at"].endswith("Z")


@pytest.mark.parametrize(
    "what",
    [
        lambda pools: pools.pool("x"),
        lambda pools: pools.preview("x", None, hours=1),
        lambda pools: pools.preview("x", "q", hours=1),
        lambda pools: pools.change_pool("x", {"paused": True}),
        lambda pools: pools.delete_pool("x"),
        lambda pools: pools.queues("x"),
        lambda pools: pools.queue("x", "q"),
        lambda pools: pools.change_queue("x", "q", {"paused": True}),
        lambda pools: pools.delete_queue("x", "q"),
        lambda pools: pools.create_queue(NewQueue(pool="x", name="q")),
        lambda pools: pools.pool(""),
        lambda pools: pools.delete_pool("a/b"),
    ],
)
async def test_a_pool_that_is_not_there(
    prefect: FakePrefect, what: Callable[[PoolsBackend], Coroutine[Any, Any, Json | Refused]]
) -> None:
    no(await asked(prefect, what), 404, "no work pool", "runnerctl pool ls")
    assert prefect.pools.pools == {}


async def test_changes_to_a_pool_leave_the_rest(prefect: FakePrefect) -> None:
    await create(prefect, description="old", concurrency_limit=5)
    for changes in ({"paused": True}, {"concurrency_limit": None}, {"description": "new", "base_job_template": OWN}):
        changed = await asked(prefect, lambda pools, it=changes: pools.change_pool("etl", it))  # type: ignore[misc]
        assert set(changed) == POOL_FIELDS
    assert (changed["paused"], changed["concurrency_limit"], changed["description"]) == (True, None, "new")
    assert prefect.pools.read_pool("etl").base_job_template == OWN
    no(
        await asked(prefect, lambda pools: pools.change_pool("etl", {"base_job_template": {"x": 1}})),
        422,
        "job_configuration",
    )


async def test_a_deleted_pool_is_gone_with_its_queues(prefect: FakePrefect) -> None:
    await create(prefect)
    assert (await asked(prefect, lambda pools: pools.delete_pool("etl")))["name"] == "etl"
    assert await asked(prefect, lambda pools: pools.queues(None)) == []
    no(await asked(prefect, lambda pools: pools.delete_pool("prefect-pool")), 404)


async def test_types_of_workers(prefect: FakePrefect) -> None:
    types = await asked(prefect, lambda pools: pools.worker_types())
    assert [(its["type"], its["package"]) for its in types] == [("docker", "prefect-docker"), ("process", "prefect")]
    its = await asked(prefect, lambda pools: pools.worker_type("process"))
    assert (set(its) - set(types[0]), its["base_job_template"]) == ({"base_job_template"}, TEMPLATE)
    no(await asked(prefect, lambda pools: pools.worker_type("nix")), 404, "'nix'", "docker, process")
