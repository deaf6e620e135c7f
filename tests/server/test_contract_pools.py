"""The contract about work pools: FakePrefect as 2.20 and as 3.x, and the real servers that it stands for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runnerd.core.prefect import AGENT_POOL, ApiCondition, FlowRun, NewPool, NewQueue, StateType, WorkPool, WorkQueue
from runnerd.prefect_api.answers import ApiRefusal
from tests.kits.contract import NOBODY, Server, Visit, new_id, text

Json = Any
WAIT_S = 100.0
TEMPLATE = {"job_configuration": {"command": "{{ command }}"}, "variables": {"properties": {"command": {}}}}


class Insisting:
    """PrefectApi.pools, asked again when a server on SQLite says 503."""

    def __init__(self, visit: Visit) -> None:
        self._visit = visit

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        call = getattr(self._visit.api.pools, name)
        return lambda *args, **more: self._visit.insist(lambda: call(*args, **more))


@dataclass(frozen=True)
class Place:
    """One test's work pool on a server."""

    visit: Visit
    pools: Insisting
    pool: str
    major: int

    async def queue(self, name: str, **more: Any) -> WorkQueue:
        made = await self.pools.create_queue(NewQueue(pool=self.pool, name=name, **more))
        assert isinstance(made, WorkQueue), made
        return made

    async def deploy(self, queue: str | None = None, **more: Json) -> str:
        """A deployment in the pool, as its project registers it."""
        flow_id = await self.visit.insist(lambda: self.visit.api.ensure_flow("pooled", []))
        body = {"name": f"d-{new_id()}", "flow_id": flow_id, "work_pool_name": self.pool, "work_queue_name": queue}
        answer = await self.visit.raw("POST", "/deployments/", {**body, **more})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    async def run(self, deployment_id: str, *, minutes: float = 0, **more: Json) -> str:
        state = {"type": "SCHEDULED", "state_details": {"scheduled_time": text(minutes)}}
        path = f"/deployments/{deployment_id}/create_flow_run"
        answer = await self.visit.raw("POST", path, {"state": state, **more})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    async def enter(self, run_id: str, kind: str) -> None:
        answer = await self.visit.raw("POST", f"/flow_runs/{run_id}/set_state", {"state": {"type": kind}})
        assert answer.json()["status"] == "ACCEPT", answer.text

    async def due(self, *queues: WorkQueue, **more: Any) -> list[FlowRun]:
        names = {queue.id: queue.name for queue in queues}
        more = {"before": datetime.now(UTC) + timedelta(minutes=1), **more}
        found = await self.pools.runs(self.pool, queues=names, **more)
        assert found is not None
        return list(found)

    async def ids(self, *queues: WorkQueue, **more: Any) -> list[str]:
        return [run.id for run in await self.due(*queues, **more)]


@asynccontextmanager
async def at_pool(server: Server) -> AsyncIterator[Place]:
    """A pool for one test, which is gone afterwards."""
    async with server.visit() as visit:
        pools, name = Insisting(visit), f"pool {new_id()[:8]}"
        made = await pools.create_pool(NewPool(name=name))
        assert isinstance(made, WorkPool), made
        try:
            yield Place(visit, pools, name, visit.major)
        finally:
            await pools.delete_pool(name)
        assert visit.api.health.condition is ApiCondition.OK


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
        assert await pools.read_pool(name) == made
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


# --- what a pool offers ---------------------------------------------------------------------------------------


async def test_runs_are_offered_by_priority_then_time(server: Server) -> None:
    async with at_pool(server) as at:
        high, low = await at.queue("high", priority=1), await at.queue("low")
        on_high, on_low = await at.deploy("high"), await at.deploy("low")
        late, early = await at.run(on_low, minutes=-1), await at.run(on_low, minutes=-2)
        urgent = await at.run(on_high, job_variables={"env": {"A": "1"}}, parameters={"x": 1})
        await at.run(on_high, minutes=30)  # not due

        found = await at.due(high, low)
        assert [run.id for run in found] == [urgent, early, late]
        assert [run.queue for run in found] == ["high", "low", "low"]
        assert found[0].pool == at.pool and found[0].deployment_id == on_high
        assert (found[0].job_variables, found[0].parameters) == ({"env": {"A": "1"}}, {"x": 1})
        assert found[1].job_variables == {}
        # The servers leave the state out of such a run; enough of it is told beside.
        assert (found[0].state.type, found[0].state.name) == (StateType.SCHEDULED, "Scheduled")
        assert found[0].state.scheduled_time == found[0].next_scheduled_start_time is not None

        assert await at.ids(low) == [early, late]
        everything = await at.due()
        assert [run.id for run in everything] == [urgent, early, late]
        assert {run.queue for run in everything} == {None}  # nobody said what their ids are called
        assert await at.ids(low, limit=1) == [early]
        assert await at.ids(limit=1000) == [urgent, early, late]  # the servers refuse more than 200
        assert await at.ids(limit=0) == []


async def test_a_deployment_that_names_no_queue_is_in_the_default_one(server: Server) -> None:
    async with at_pool(server) as at:
        run = await at.run(await at.deploy())
        default = await at.pools.read_queue(at.pool, "default")
        assert [(each.id, each.queue) for each in await at.due(default)] == [(run, "default")]
        # A queue that a deployment names is created by the server.
        other = await at.run(await at.deploy("named by a deployment"))
        named = await at.pools.read_queue(at.pool, "named by a deployment")
        assert await at.ids(named) == [other]


async def test_the_times_of_what_is_asked_for_are_included(server: Server) -> None:
    async with at_pool(server) as at:
        run = await at.run(await at.deploy(), minutes=-1)
        due = (await at.due())[0].next_scheduled_start_time
        assert due is not None
        moment = timedelta(microseconds=1)
        assert await at.ids(before=due, after=due) == [run]
        assert await at.ids(before=due - moment) == []
        assert await at.ids(after=due + moment) == []


async def test_one_unknown_queue_refuses_all(server: Server) -> None:
    async with at_pool(server) as at:
        await at.run(await at.deploy())
        default, now = await at.pools.read_queue(at.pool, "default"), datetime.now(UTC)
        both = {default.id: "default", NOBODY: "no such queue"}
        assert await at.pools.runs(at.pool, queues=both, before=now) is None


async def test_what_is_paused_offers_nothing(server: Server) -> None:
    async with at_pool(server) as at:
        queue = await at.queue("q")
        ours, other = await at.run(await at.deploy("q")), await at.run(await at.deploy())
        assert await at.pools.update_queue(at.pool, "q", {"is_paused": True})
        assert await at.ids(queue) == []
        assert await at.ids() == [other]
        assert await at.pools.update_pool(at.pool, {"is_paused": True})
        assert await at.ids() == []
        assert await at.pools.update_queue(at.pool, "q", {"is_paused": False})
        assert await at.pools.update_pool(at.pool, {"is_paused": False})
        assert sorted(await at.ids()) == sorted([ours, other])


@pytest.mark.parametrize("limited", ["pool", "queue"])
async def test_a_limit_counts_pending_and_running_runs(server: Server, limited: str) -> None:
    async with at_pool(server) as at:
        await at.queue("q")
        there = await at.deploy("q")
        runs = [await at.run(there, minutes=minutes) for minutes in (-4, -3, -2, -1)]
        change = {"concurrency_limit": 2}
        if limited == "pool":
            assert await at.pools.update_pool(at.pool, change)
        else:
            assert await at.pools.update_queue(at.pool, "q", change)
        assert await at.ids() == runs[:2]
        await at.enter(runs[0], "PENDING")
        assert await at.ids() == [runs[1]]
        await at.enter(runs[1], "PENDING")
        await at.enter(runs[1], "RUNNING")
        assert await at.ids() == []
        await at.enter(runs[1], "CANCELLING")  # it still runs, and is counted no more
        assert await at.ids() == [runs[2]]


async def test_the_limit_of_a_pool_is_for_all_its_queues(server: Server) -> None:
    async with at_pool(server) as at:
        high, low = await at.queue("high", priority=1), await at.queue("low")
        on_low = await at.run(await at.deploy("low"), minutes=-5)
        on_high = await at.run(await at.deploy("high"))
        assert await at.pools.update_pool(at.pool, {"concurrency_limit": 1})
        assert await at.ids(high, low) == [on_high]
        await at.enter(on_high, "PENDING")
        assert await at.ids(low) == []
        assert await at.pools.update_pool(at.pool, {"concurrency_limit": 0})
        await at.enter(on_high, "CANCELLED")
        assert await at.ids() == []
        assert await at.pools.update_pool(at.pool, {"concurrency_limit": None})
        assert await at.ids() == [on_low]


async def test_what_was_in_a_deleted_pool_stays_and_is_offered_by_nobody(server: Server) -> None:
    async with at_pool(server) as at:
        there = await at.deploy(job_variables={"a": 1})
        run = await at.run(there)
        assert await at.pools.delete_pool(at.pool) is True
        left = await at.visit.stored(there)
        assert (left["work_pool_name"], left["paused"]) == (None, False)
        assert (await at.pools.deployment(there)).job_variables == {"a": 1}
        assert await at.visit.state_of(run) is StateType.SCHEDULED
        await at.run(there)
        # A pool that is created again under this name is another one.
        assert isinstance(await at.pools.create_pool(NewPool(name=at.pool)), WorkPool)
        assert await at.ids() == []


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


# --- what launching a run needs -------------------------------------------------------------------------------


async def test_a_deployment_tells_what_its_runs_need(server: Server) -> None:
    async with at_pool(server) as at:
        there = await at.deploy(job_variables={"env": {"A": "1"}, "command": "true"}, version="7")
        stored = await at.visit.stored(there)
        found = await at.pools.deployment(there)
        assert (found.id, found.name, found.flow_id) == (there, stored["name"], stored["flow_id"])
        assert (found.job_variables, found.version) == ({"env": {"A": "1"}, "command": "true"}, "7")
        assert (found.infrastructure_document_id, found.storage_document_id) == (None, None)
        # 2.20 takes them by this name, and tells them by another.
        assert ("job_variables" in stored, "infra_overrides" in stored) == (at.major == 3, at.major == 2)


async def test_a_block_is_read_with_its_secrets(server: Server) -> None:
    async with at_pool(server) as at:
        name, data = f"b-{new_id()}", {"value": "hunter2"}
        block_id = await block(server, at.visit, "secret", name, data)
        found = await at.pools.block_by_id(block_id)
        assert (found.id, found.name, found.type_slug, found.data) == (block_id, name, "secret", data)
        assert "hunter2" not in repr(found)
        assert await at.pools.block_by_name("secret", name) == found
        assert await at.pools.block_by_name("json", name) is None


async def block(server: Server, visit: Visit, slug: str, name: str, data: Json) -> str:
    if server.fake is not None:
        return server.fake.pools.add_block(slug, name, data)
    kind = (await visit.raw("GET", f"/block_types/slug/{slug}")).json()["id"]
    chosen = {"block_schemas": {"block_type_id": {"any_": [kind]}}}
    schema = (await visit.raw("POST", "/block_schemas/filter", chosen)).json()[0]["id"]
    body = {"name": name, "data": data, "block_type_id": kind, "block_schema_id": schema}
    return str((await visit.raw("POST", "/block_documents/", body)).json()["id"])


async def test_a_variable_is_read_as_it_was_written(server: Server) -> None:
    async with at_pool(server) as at:
        for value in ("seven", "") if at.major == 2 else ("seven", 7, None, {"a": [1, None]}):
            name = f"v_{new_id().replace('-', '_')}"
            if server.fake is not None:
                server.fake.pools.set_variable(name, value)
            else:
                made = await at.visit.raw("POST", "/variables/", {"name": name, "value": value})
                assert made.status_code == 201, made.text
            found = await at.pools.variable(name)
            assert (found.name, found.value) == (name, value)


# --- what is noted at a run -----------------------------------------------------------------------------------


async def test_where_a_run_runs_is_noted_and_cleared(server: Server) -> None:
    async with at_pool(server) as at:
        run = await at.run(await at.deploy(tags=["t"]), parameters={"x": 1}, name="mine")

        async def stored() -> tuple[str | None, str, Json, Json]:
            told = (await at.visit.raw("GET", f"/flow_runs/{run}")).json()
            return told["infrastructure_pid"], told["name"], told["parameters"], told["tags"]

        await at.pools.note_infrastructure(run, "host-1:77")
        assert await stored() == ("host-1:77", "mine", {"x": 1}, ["t"])
        await at.pools.note_infrastructure(run, None)
        assert await stored() == (None, "mine", {"x": 1}, ["t"])


async def test_labels_are_added_as_plain_values(server: Server) -> None:
    """3.x takes any JSON for a label, and then fails to read the run, so nothing else is sent."""
    async with at_pool(server) as at:
        run = await at.run(await at.deploy())
        await at.pools.label_run(run, {"a": 1, "b": True, "nothing": None, "list": [1, {"x": None}]})
        await at.pools.label_run(run, {"c": "x"})
        told = (await at.visit.raw("GET", f"/flow_runs/{run}")).json()
        if at.major == 2:
            assert "labels" not in told
            return
        expected = {"a": 1, "b": True, "c": "x", "list": '[1, {"x": null}]'}
        assert {name: told["labels"].get(name) for name in expected} == expected
        assert "nothing" not in told["labels"]
