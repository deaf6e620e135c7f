"""The contract about work pools: FakePrefect as 2.20 and as 3.x, and the real servers that it stands for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from runnerd.core.prefect import AGENT_POOL, NewPool, NewQueue, StateType, WorkPool
from runnerd.prefect_api.answers import ApiRefusal
from tests.kits.contract import NOBODY, Server, new_id
from tests.kits.contract_pools import TEMPLATE, Insisting, Place, at_pool

WAIT_S = 100.0


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    deadline = asyncio.get_running_loop().time() + WAIT_S
    while not await true():
        assert asyncio.get_running_loop().time() < deadline, "it did not come about in time"
        await asyncio.sleep(0.2)


# --- pools ----------------------------------------------------------------------------------------------------


async def test_a_pool_is_created_changed_and_deleted(server: Server) -> None:
    async with at_pool(server) as at:
        name, pools = f"é? #{new_id()}", at.pools
        made = await pools.create_pool(
            NewPool(
                name=name,
                type="docker",
                base_job_template=TEMPLATE,
                description="Two hosts.",
                is_paused=True,
                concurrency_limit=3,
            )
        )
        assert isinstance(made, WorkPool)
        assert (made.name, made.type, made.description, made.status) == (name, "docker", "Two hosts.", "PAUSED")
        assert (made.is_paused, made.concurrency_limit, made.base_job_template) == (True, 3, TEMPLATE)
        read = await pools.read_pool(name)
        assert read == made
        assert read is not None and read.created is not None and read.updated is not None
        assert read.created <= read.updated
        assert made in await pools.all_pools()
        (queue,) = await pools.queues(name)
        assert (queue.id, queue.name, queue.priority) == (made.default_queue_id, "default", 1)

        changes = {"is_paused": False, "concurrency_limit": None, "description": None}
        assert await pools.update_pool(name, changes) is True
        changed = await pools.read_pool(name)
        assert (changed.is_paused, changed.concurrency_limit, changed.description) == (False, None, None)
        assert (changed.status, changed.base_job_template) == ("NOT_READY", TEMPLATE)

        assert await pools.delete_pool(name) is True
        assert await pools.delete_pool(name) is False
        assert await pools.update_pool(name, changes) is False
        assert await pools.read_pool(name) is None


async def test_a_pool_that_cannot_be_is_refused_in_words(server: Server) -> None:
    async with at_pool(server) as at:

        async def why(call: Awaitable[Any]) -> str:
            refused = await call
            assert isinstance(refused, ApiRefusal), refused
            return refused.reason

        create, update, new = at.pools.create_pool, at.pools.update_pool, f"new {new_id()}"
        assert "already exists" in await why(create(NewPool(name=at.pool)))
        assert "job_configuration" in await why(create(NewPool(name=new, base_job_template={"job": {}})))
        assert "concurrency_limit" in await why(create(NewPool(name=new, concurrency_limit=-1)))
        assert "job_configuration" in await why(update(at.pool, {"base_job_template": {"job": {}}}))
        assert "colour" in await why(update(at.pool, {"colour": "red"}))
        assert await at.pools.read_pool(new) is None


async def test_prefects_own_pools_are_no_matter_of_credentials(server: Server) -> None:
    async with at_pool(server) as at:
        denied = await at.visit.raw("POST", "/work_pools/", {"name": "Prefect-x", "type": "process"})
        assert denied.status_code == 403
        for refused in (
            await at.pools.create_pool(NewPool(name="Prefect-x")),
            await at.pools.update_pool("prefect-x", {"description": "mine"}),
            await at.pools.delete_pool("PREFECT"),
        ):
            assert isinstance(refused, ApiRefusal) and "Prefect's own" in refused.reason
        assert await at.pools.update_pool("prefect-x", {"is_paused": True}) is False


async def test_a_name_that_nothing_can_have_is_nobodys(server: Server) -> None:
    async def unusable(at: Place, name: str) -> None:
        pools, now = at.pools, datetime.now(UTC)
        assert isinstance(await pools.create_pool(NewPool(name=name)), ApiRefusal)
        assert isinstance(await pools.create_queue(NewQueue(pool=at.pool, name=name)), ApiRefusal)
        assert isinstance(await pools.create_queue(NewQueue(pool=name, name="q")), ApiRefusal)
        for nobody in (
            await pools.read_pool(name),
            await pools.read_queue(at.pool, name),
            await pools.read_queue(name, "default"),
            await pools.runs(name, queues={}, before=now),
            await pools.block_by_name("secret", name),
            await pools.block_by_name(name, "x"),
            await pools.variable(name),
        ):
            assert nobody is None
        for no in (
            await pools.update_pool(name, {"is_paused": True}),
            await pools.delete_pool(name),
            await pools.update_queue(at.pool, name, {"priority": 1}),
            await pools.delete_queue(at.pool, name),
            await pools.heartbeat(name, worker="w", interval_s=30),
        ):
            assert no is False
        assert await pools.queues(name) == [] == await pools.workers(name)

    async with at_pool(server) as at:
        for name in ("", " ", "a/b", "50%", "<x>", "..", "\udc80"):
            await unusable(at, name)


async def test_what_does_not_exist_is_a_value(server: Server) -> None:
    async with at_pool(server) as at:
        pools, now, nobody = at.pools, datetime.now(UTC), "no such"
        assert await pools.queues(nobody) == [] == await pools.workers(nobody)
        assert await pools.heartbeat(nobody, worker="w", interval_s=30) is False
        assert await pools.runs(nobody, queues={}, before=now) is None
        refused = await pools.create_queue(NewQueue(pool=nobody, name="q"))
        assert isinstance(refused, ApiRefusal) and "not found" in refused.reason
        assert await pools.read_queue(at.pool, nobody) is None
        assert await pools.update_queue(at.pool, nobody, {"priority": 1}) is False
        assert await pools.delete_queue(at.pool, nobody) is False
        assert await pools.variable(nobody) is None
        assert await pools.block_by_name("secret", nobody) is None
        assert await pools.block_by_name(nobody, nobody) is None
        for no_id in (NOBODY, "no-uuid", "../work_pools", ""):
            assert await pools.tagged_runs(no_id, before=now) is None
            assert await pools.deployment(no_id) is None
            assert await pools.block_by_id(no_id) is None
            await pools.note_infrastructure(no_id, "1")
            await pools.label_run(no_id, {"a": 1})


# --- queues ---------------------------------------------------------------------------------------------------


async def test_queues_keep_an_order(server: Server) -> None:
    async with at_pool(server) as at:

        async def order() -> list[tuple[str, int]]:
            return [(queue.name, queue.priority) for queue in await at.pools.queues(at.pool)]

        first = await at.queue("b", priority=1, description="First.", concurrency_limit=2, is_paused=True)
        assert (first.pool, first.priority, first.description) == (at.pool, 1, "First.")
        assert (first.concurrency_limit, first.is_paused, first.filter) == (2, True, None)
        assert await at.pools.read_queue(at.pool, "b") == first
        await at.queue("c")
        assert await order() == [("b", 1), ("default", 2), ("c", 3)]
        assert await at.pools.update_queue(at.pool, "c", {"priority": 1}) is True
        assert await order() == [("c", 1), ("b", 2), ("default", 3)]

        assert await at.pools.update_queue(at.pool, "b", {"is_paused": False, "concurrency_limit": None}) is True
        changed = await at.pools.read_queue(at.pool, "b")
        assert (changed.is_paused, changed.concurrency_limit, changed.description) == (False, None, "First.")
        assert await at.pools.delete_queue(at.pool, "b") is True
        assert await at.pools.delete_queue(at.pool, "b") is False
        assert [name for name, _ in await order()] == ["c", "default"]


async def test_queues_are_found_by_the_start_of_their_names(server: Server) -> None:
    """By exactly that: the servers take `_` for any character, and capitals for small letters."""
    async with at_pool(server) as at:
        for name in ("etl_a", "etl-b", "ETL_c", "etl_d", "x"):
            await at.queue(name)

        async def found(*prefixes: str) -> list[str]:
            return [queue.name for queue in await at.pools.queues(at.pool, prefixes=prefixes)]

        assert await found("etl_") == ["etl_a", "etl_d"]
        assert await found("etl_d", "x", "nothing") == ["etl_d", "x"]
        assert await found("nothing") == []


async def test_a_queue_that_cannot_be_is_refused_in_words(server: Server) -> None:
    async with at_pool(server) as at:
        await at.queue("q")
        for refused, word in (
            (await at.pools.create_queue(NewQueue(pool=at.pool, name="q")), "already exists"),
            (await at.pools.create_queue(NewQueue(pool=at.pool, name="r", priority=0)), "priority"),
            (await at.pools.update_queue(at.pool, "q", {"colour": "red"}), "colour"),
            (await at.pools.update_queue(at.pool, "q", {"name": "default"}), "conflict"),
            (await at.pools.delete_queue(at.pool, "default"), "default queue"),
        ):
            assert isinstance(refused, ApiRefusal) and word in refused.reason
        # This is why it is not asked for: an error of the server is one that may pass.
        answer = await at.visit._raw.request("DELETE", f"/work_pools/{at.pool}/queues/default")
        assert answer.status_code >= 500
        assert [queue.name for queue in await at.pools.queues(at.pool)] == ["default", "q"]


# --- 2.x: agents ----------------------------------------------------------------------------------------------


async def test_a_queue_without_a_pool_is_in_the_agents_pool(server: Server) -> None:
    async with at_pool(server) as at:
        name = f"q-{new_id()}"
        run = await at.run(await at.deploy(name, work_pool_name=None))
        queue = await at.pools.read_queue(AGENT_POOL, name)
        pool = await at.pools.read_pool(AGENT_POOL)
        assert (queue.pool, pool.type, pool.status) == (AGENT_POOL, "prefect-agent", None)
        found = await at.pools.runs(AGENT_POOL, queues={queue.id: name}, before=datetime.now(UTC))
        assert [(each.id, each.queue) for each in found] == [(run, name)]
        assert [each.id for each in await at.pools.tagged_runs(queue.id, before=datetime.now(UTC))] == [run]


async def test_a_legacy_queue_picks_runs_by_tags_out_of_every_pool(server: Server) -> None:
    async with at_pool(server) as at:
        tag, name = new_id(), f"legacy-{new_id()}"
        both, one = await at.deploy(tags=[tag, "x", "y"]), await at.deploy(tags=[tag])
        run, _ = await at.run(both), await at.run(one)
        chosen = {"tags": [tag, "x"], "deployment_ids": None}
        made = await at.visit.raw("POST", "/work_queues/", {"name": name, "filter": chosen})
        queue = await at.pools.read_queue(AGENT_POOL, name)
        assert (queue.id, queue.filter) == (made.json()["id"], chosen)

        async def picked(**more: Any) -> list[str]:
            return [each.id for each in await at.pools.tagged_runs(queue.id, before=datetime.now(UTC), **more)]

        (found,) = await at.pools.tagged_runs(queue.id, before=datetime.now(UTC), limit=1000)
        assert (found.id, found.state.type, found.pool, found.queue) == (run, StateType.SCHEDULED, None, None)
        assert await picked(limit=0) == []
        # Its pool does not offer them, which is why it is asked by its id; what is put into it is offered only there.
        assert await at.pools.runs(AGENT_POOL, queues={queue.id: name}, before=datetime.now(UTC)) == []
        inside = await at.run(await at.deploy(name, work_pool_name=None))
        offered = await at.pools.runs(AGENT_POOL, queues={queue.id: name}, before=datetime.now(UTC))
        assert [each.id for each in offered] == [inside]
        assert await picked() == [run]

        assert await at.pools.update_queue(AGENT_POOL, name, {"is_paused": True})
        assert await picked() == []
        assert await at.pools.update_queue(AGENT_POOL, name, {"is_paused": False, "concurrency_limit": 1})
        assert await picked() == [run]
        await at.enter(await at.run(both), "PENDING")
        assert await picked() == []
        assert await at.pools.delete_queue(AGENT_POOL, name) is True
        assert await at.pools.tagged_runs(queue.id, before=datetime.now(UTC)) is None


# --- workers --------------------------------------------------------------------------------------------------


async def test_a_worker_is_online_with_its_first_heartbeat(server: Server) -> None:
    async with at_pool(server) as at:
        assert await at.pools.workers(at.pool) == []
        for _ in range(2):
            assert await at.pools.heartbeat(at.pool, worker="host-1", interval_s=30) is True
        (worker,) = await at.pools.workers(at.pool)
        assert (worker.name, worker.status) == ("host-1", "ONLINE")
        assert worker.last_heartbeat is not None
        assert (await at.pools.read_pool(at.pool)).status == "READY"
        assert await at.pools.heartbeat(at.pool, worker="host-2", interval_s=30.5) is True  # which 3.x refuses
        assert [worker.name for worker in await at.pools.workers(at.pool)] == ["host-2", "host-1"]


async def test_a_last_heartbeat_of_one_second_makes_a_worker_offline(server: Server) -> None:
    """Of no second would not do: 2.20 takes 0 for the usual 30."""
    async with at_pool(server) as at:
        await at.pools.heartbeat(at.pool, worker="stopped", interval_s=30)
        await at.pools.heartbeat(at.pool, worker="stopped", interval_s=1)
        if server.fake is not None:
            server.fake.ahead += timedelta(seconds=4)

        async def offline() -> bool:
            (worker,) = await at.pools.workers(at.pool)
            return bool(worker.status == "OFFLINE")

        await until(offline)


async def test_the_types_of_workers_are_told_with_their_templates(server: Server) -> None:
    if server.fake is not None:
        server.fake.pools.add_worker_type("process", "prefect", TEMPLATE)
    async with server.visit() as visit:
        process = (await Insisting(visit).worker_types())["process"]
        assert (process.type, process.package) == ("process", "prefect")
        assert process.description and {"job_configuration", "variables"} <= set(process.template)
