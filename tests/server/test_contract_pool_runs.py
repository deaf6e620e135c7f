"""The contract about the runs of work pools: which are offered, what launching one needs, and what is noted at it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from runnerd.core.prefect import NewPool, StateType, WorkPool
from tests.kits.contract import NOBODY, Server, Visit, new_id
from tests.kits.contract_pools import Json, at_pool

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


# --- what launching a run needs -------------------------------------------------------------------------------


async def test_a_deployment_tells_what_its_runs_need(server: Server) -> None:
    async with at_pool(server) as at:
        there = await at.deploy(job_variables={"env": {"A": "1"}, "command": "true"}, version="7")
        stored = await at.visit.stored(there)
        found = await at.pools.deployment(there)
        assert (found.id, found.name, found.flow_id) == (there, stored["name"], stored["flow_id"])
        assert (found.job_variables, found.version) == ({"env": {"A": "1"}, "command": "true"}, "7")
        assert found.infrastructure_document_id is None
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
    server.skip_before("3.2.0", "runs have no labels, or no route to add them")
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
