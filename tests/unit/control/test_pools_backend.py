"""control/backend/pools.py: requests about work pools and queues, and their changes, against both fake servers."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runnerd.control.backend.asking import Ask
from runnerd.control.backend.pools import PoolsBackend
from runnerd.control.contract import OFFER_FIELDS, POOL_FIELDS, QUEUE_FIELDS, Pools, Refused
from runnerd.core.prefect import AGENT, AGENT_POOL, NewPool, NewQueue
from runnerd.prefect_api.reading import PAGE
from tests.kits import jump_loop as jumploop
from tests.kits.engine import an_ambient
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.nouns import Json, LogLines, fake_api

TEMPLATE = {"job_configuration": {"command": "{{ command }}"}, "variables": {"properties": {"command": {}}}}
OWN = {"job_configuration": {"own": "1"}, "variables": {}}
_IS_WHAT_THE_HOST_HAS: type[Pools] = PoolsBackend


@pytest.fixture(params=[2, 3])
def prefect(request: pytest.FixtureRequest) -> FakePrefect:
    fake = FakePrefect(major=request.param)
    fake.pools.add_worker_type("process", "prefect", TEMPLATE)
    fake.pools.add_worker_type("docker", "prefect-docker", OWN)
    return fake


def asked(prefect: FakePrefect, what: Callable[[PoolsBackend], Coroutine[Any, Any, Json | Refused]]) -> Any:
    """The answer, whatever it is."""
    ask = Ask(ambient=an_ambient(LogLines(), now=lambda: datetime.now(UTC), clock=time.monotonic))
    pools = PoolsBackend(api=fake_api(prefect), ask=ask, now=lambda: datetime.now(UTC), served=lambda: {"served"})
    return jumploop.run(what(pools))


def no(answer: object, status: int, *words: str) -> None:
    assert isinstance(answer, Refused)
    assert answer.status == status
    assert [word for word in words if word not in answer.detail] == []


def create(prefect: FakePrefect, name: str = "etl", *, update: bool = False, **about: Json) -> Any:
    return asked(prefect, lambda pools: pools.create_pool(NewPool(name=name, **about), update=update))


def create_queue(prefect: FakePrefect, pool: str, name: str, **about: Json) -> Any:
    return asked(prefect, lambda pools: pools.create_queue(NewQueue(pool=pool, name=name, **about)))


def preview(prefect: FakePrefect, pool: str | None = "etl", queue: str | None = None, *, hours: int = 1) -> Any:
    return asked(prefect, lambda pools: pools.preview(pool, queue, hours=hours))


# --- creating pools ---------------------------------------------------------------------------------------------------


def test_a_new_pool_is_of_type_process_and_has_the_template_of_its_type(prefect: FakePrefect) -> None:
    made = create(prefect)
    assert set(made) == POOL_FIELDS | {"created"}
    assert (made["name"], made["type"], made["created"], made["served"]) == ("etl", "process", True, False)
    assert prefect.pools.read_pool("etl").base_job_template == TEMPLATE


def test_what_is_said_of_a_new_pool(prefect: FakePrefect) -> None:
    about = {"type": "docker", "description": "for images", "concurrency_limit": 0}
    made = create(prefect, "served", base_job_template=TEMPLATE, is_paused=True, **about)
    assert {**about, "paused": True}.items() <= made.items()
    assert made["served"] is True
    assert prefect.pools.read_pool("served").base_job_template == TEMPLATE


def test_an_unknown_type_needs_a_template_of_its_own(prefect: FakePrefect) -> None:
    no(create(prefect, type="nix"), 422, "'nix'", "docker, process")
    assert prefect.pools.pools == {}
    assert create(prefect, type="nix", base_job_template=OWN)["type"] == "nix"


def test_a_pool_for_agents_has_an_empty_template() -> None:
    prefect = FakePrefect(major=2)
    prefect.pools.add_worker_type(AGENT, "prefect", {})
    assert create(prefect, type=AGENT)["type"] == AGENT


def test_a_pool_is_created_once(prefect: FakePrefect) -> None:
    create(prefect, description="the first")
    no(create(prefect, description="the second"), 409, "'etl'", "--update")
    assert prefect.pools.read_pool("etl").description == "the first"


def test_an_update_makes_a_pool_what_a_new_one_would_be(prefect: FakePrefect) -> None:
    create(prefect, type="docker", base_job_template=TEMPLATE, description="old", concurrency_limit=5)
    made = create(prefect, is_paused=True, update=True)
    after = {"type": "docker", "paused": True, "description": None, "concurrency_limit": None, "created": False}
    assert after.items() <= made.items()
    assert prefect.pools.read_pool("etl").base_job_template == OWN


def test_an_update_cannot_change_the_type_and_creates_what_is_missing(prefect: FakePrefect) -> None:
    assert create(prefect, update=True)["created"] is True
    no(create(prefect, type="docker", update=True), 409, "'process'", "'docker'")
    assert create(prefect, type="process", update=True)["created"] is False


def test_what_the_server_will_not_have(prefect: FakePrefect) -> None:
    no(create(prefect, "prefect-mine"), 422, "Prefect's own")
    no(create(prefect, "a/b"), 422)
    no(create(prefect, base_job_template={"variables": {}}), 422, "job_configuration")
    assert prefect.pools.pools == {}


# --- a server in trouble ----------------------------------------------------------------------------------------------


def test_a_server_that_was_too_busy_to_say_yes_made_it_once(prefect: FakePrefect) -> None:
    prefect.trouble("POST /work_pools/", status=503, after=True)
    assert create(prefect)["created"] is True
    prefect.trouble("POST /work_pools/etl/queues", status=503, after=True)
    assert create_queue(prefect, "etl", "urgent")["name"] == "urgent"
    assert [queue.name for queue in prefect.pools.queues("etl")] == ["default", "urgent"]


def test_a_server_that_was_too_busy_to_say_yes_deleted_it(prefect: FakePrefect) -> None:
    create(prefect)
    create_queue(prefect, "etl", "urgent")
    prefect.trouble("DELETE", status=503, after=True, times=1)
    assert asked(prefect, lambda pools: pools.delete_queue("etl", "urgent"))["name"] == "urgent"
    prefect.trouble("DELETE", status=503, after=True, times=1)
    assert asked(prefect, lambda pools: pools.delete_pool("etl"))["name"] == "etl"
    assert prefect.pools.pools == {}


def test_an_absent_server_is_told_at_once(prefect: FakePrefect) -> None:
    prefect.down = True
    no(asked(prefect, lambda pools: pools.pools()), 503, "runnerctl status")
    assert len(prefect.asked) == 1


# --- looking at pools and changing them -------------------------------------------------------------------------------


def test_pools_by_name(prefect: FakePrefect) -> None:
    assert asked(prefect, lambda pools: pools.pools()) == []
    for name in ("served", "etl"):
        create(prefect, name)
    pools = asked(prefect, lambda pools: pools.pools())
    assert [set(pool) for pool in pools] == [POOL_FIELDS, POOL_FIELDS]
    assert [(pool["name"], pool["served"]) for pool in pools] == [("etl", False), ("served", True)]


def test_one_pool_with_everything_in_it(prefect: FakePrefect) -> None:
    create(prefect)
    create_queue(prefect, "etl", "urgent", priority=1)
    prefect.pools.heartbeat("etl", worker="w", interval_s=30)
    pool = asked(prefect, lambda pools: pools.pool("etl"))
    assert set(pool) == POOL_FIELDS | {"base_job_template", "queues", "workers"}
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
def test_a_pool_that_is_not_there(
    prefect: FakePrefect, what: Callable[[PoolsBackend], Coroutine[Any, Any, Json | Refused]]
) -> None:
    no(asked(prefect, what), 404, "no work pool", "runnerctl pool ls")
    assert prefect.pools.pools == {}


def test_changes_to_a_pool_leave_the_rest(prefect: FakePrefect) -> None:
    create(prefect, description="old", concurrency_limit=5)
    for changes in ({"paused": True}, {"concurrency_limit": None}, {"description": "new", "base_job_template": OWN}):
        changed = asked(prefect, lambda pools, it=changes: pools.change_pool("etl", it))  # type: ignore[misc]
        assert set(changed) == POOL_FIELDS
    assert (changed["paused"], changed["concurrency_limit"], changed["description"]) == (True, None, "new")
    assert prefect.pools.read_pool("etl").base_job_template == OWN
    no(
        asked(prefect, lambda pools: pools.change_pool("etl", {"base_job_template": {"x": 1}})),
        422,
        "job_configuration",
    )


def test_a_deleted_pool_is_gone_with_its_queues(prefect: FakePrefect) -> None:
    create(prefect)
    assert asked(prefect, lambda pools: pools.delete_pool("etl"))["name"] == "etl"
    assert asked(prefect, lambda pools: pools.queues(None)) == []
    no(asked(prefect, lambda pools: pools.delete_pool("prefect-pool")), 404)


def test_types_of_workers(prefect: FakePrefect) -> None:
    types = asked(prefect, lambda pools: pools.worker_types())
    assert [(its["type"], its["package"]) for its in types] == [("docker", "prefect-docker"), ("process", "prefect")]
    its = asked(prefect, lambda pools: pools.worker_type("process"))
    assert (set(its) - set(types[0]), its["base_job_template"]) == ({"base_job_template"}, TEMPLATE)
    no(asked(prefect, lambda pools: pools.worker_type("nix")), 404, "'nix'", "docker, process")


# --- queues -----------------------------------------------------------------------------------------------------------


def test_queues_of_every_pool_and_of_one(prefect: FakePrefect) -> None:
    create(prefect, "gpu")
    create(prefect)
    made = create_queue(prefect, "etl", "urgent", priority=1, concurrency_limit=2, description="now")
    assert set(made) == QUEUE_FIELDS
    assert (made["pool"], made["priority"], made["concurrency_limit"], made["description"]) == ("etl", 1, 2, "now")
    everywhere = [(queue["pool"], queue["name"]) for queue in asked(prefect, lambda pools: pools.queues(None))]
    assert everywhere == [("etl", "urgent"), ("etl", "default"), ("gpu", "default")]
    assert [queue["name"] for queue in asked(prefect, lambda pools: pools.queues("gpu"))] == ["default"]


def test_changes_to_a_queue_leave_the_rest(prefect: FakePrefect) -> None:
    create(prefect)
    create_queue(prefect, "etl", "slow", concurrency_limit=2)
    for changes in ({"paused": True}, {"priority": 7}, {"concurrency_limit": None}, {"description": "new"}):
        changed = asked(prefect, lambda pools, it=changes: pools.change_queue("etl", "slow", it))  # type: ignore[misc]
        assert changes.items() <= changed.items()
    assert (changed["paused"], changed["priority"]) == (True, 7)
    assert asked(prefect, lambda pools: pools.queue("etl", "slow")) == changed


def test_a_queue_that_is_not_there_or_there_already(prefect: FakePrefect) -> None:
    create(prefect)
    for what in (
        lambda pools: pools.queue("etl", "x"),
        lambda pools: pools.preview("etl", "x", hours=1),
        lambda pools: pools.change_queue("etl", "x", {"paused": True}),
        lambda pools: pools.delete_queue("etl", "x"),
    ):
        no(asked(prefect, what), 404, "'x'", "'etl'", "runnerctl queue ls")
    no(create_queue(prefect, "etl", "default"), 409, "'default'", "'etl'")


def test_a_default_queue_stays(prefect: FakePrefect) -> None:
    create(prefect)
    create_queue(prefect, "etl", "urgent")
    no(asked(prefect, lambda pools: pools.delete_queue("etl", "default")), 422, "default queue")
    assert asked(prefect, lambda pools: pools.delete_queue("etl", "urgent"))["name"] == "urgent"
    assert [queue.name for queue in prefect.pools.queues("etl")] == ["default"]


def test_the_pool_of_queues_without_one_comes_with_the_first(prefect: FakePrefect) -> None:
    no(asked(prefect, lambda pools: pools.queue(AGENT_POOL, "q")), 404, AGENT_POOL, "--pool")
    assert create_queue(prefect, AGENT_POOL, "q")["pool"] == AGENT_POOL
    assert prefect.pools.read_pool(AGENT_POOL).type == AGENT


# --- what is to come --------------------------------------------------------------------------------------------------


@pytest.fixture
def busy(prefect: FakePrefect) -> FakePrefect:
    """A pool with a queue that goes first."""
    create(prefect)
    create_queue(prefect, "etl", "urgent", priority=1)
    return prefect


def add_run(prefect: FakePrefect, name: str, *, queue: str | None = None, in_min: float = 0) -> str:
    deployment_id = prefect.pools.add_deployment("etl", queue=queue, name=f"of {name}")
    return prefect.pools.add_run(deployment_id, due=datetime.now(UTC) + timedelta(minutes=in_min), name=name)


def test_a_preview_in_the_order_of_delivery_with_what_is_late(busy: FakePrefect) -> None:
    add_run(busy, "late", in_min=-5)
    add_run(busy, "soon", queue="urgent", in_min=30)
    add_run(busy, "tomorrow", in_min=24 * 60)
    found = preview(busy)
    assert [set(run) for run in found["runs"]] == [OFFER_FIELDS, OFFER_FIELDS]
    told = [(run["name"], run["queue"], run["deployment"], run["late"]) for run in found["runs"]]
    assert told == [("soon", "urgent", "of soon", False), ("late", "default", "of late", True)]
    assert (found["paused"], found["whole"]) == ([], True)
    assert [run["name"] for run in preview(busy, hours=48)["runs"]] == ["soon", "late", "tomorrow"]


def test_a_preview_of_one_queue_and_of_every_pool(busy: FakePrefect) -> None:
    create(busy, "another")
    for queue in ("urgent", "default"):
        add_run(busy, f"run of {queue}", queue=queue)
    assert [run["name"] for run in preview(busy, "etl", "urgent")["runs"]] == ["run of urgent"]
    assert [(run["pool"], run["name"]) for run in preview(busy, None)["runs"]] == [
        ("etl", "run of urgent"),
        ("etl", "run of default"),
    ]
    assert preview(busy, "another")["runs"] == []


def test_a_preview_says_what_is_paused(busy: FakePrefect) -> None:
    add_run(busy, "run", queue="urgent")
    busy.pools.update_queue("etl", "urgent", {"is_paused": True})
    found = preview(busy)
    assert (found["runs"], found["paused"]) == ([], ["etl/urgent"])
    assert preview(busy, "etl", "default")["paused"] == []
    busy.pools.update_pool("etl", {"is_paused": True})
    assert preview(busy)["paused"] == ["etl"]


def test_a_preview_says_when_there_may_be_more(busy: FakePrefect) -> None:
    deployment_id = busy.pools.add_deployment("etl")
    for _ in range(PAGE + 1):
        busy.pools.add_run(deployment_id)
    found = preview(busy)
    assert (len(found["runs"]), found["whole"]) == (PAGE, False)


def test_a_preview_of_a_queue_that_takes_runs_by_tag(prefect: FakePrefect) -> None:
    queue = prefect.pools.add_tag_queue("gpu", tags=["gpu"])
    deployment_id = prefect.pools.add_deployment(None, name="anywhere")
    prefect.pools.add_run(deployment_id, tags=["gpu"], name="tagged")
    prefect.pools.add_run(deployment_id, name="plain")
    found = preview(prefect, AGENT_POOL, queue.name)["runs"]
    assert [(run["name"], run["pool"], run["queue"]) for run in found] == [("tagged", AGENT_POOL, "gpu")]
    assert asked(prefect, lambda pools: pools.queue(AGENT_POOL, "gpu"))["filter"]["tags"] == ["gpu"]


def test_a_preview_outlives_a_deployment(busy: FakePrefect) -> None:
    add_run(busy, "orphan")
    busy.deployments.clear()
    (run,) = preview(busy)["runs"]
    assert (run["name"], run["deployment"]) == ("orphan", None)
    assert run["deployment_id"]
