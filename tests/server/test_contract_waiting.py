"""The contract about what waits in work pools: paused ones too, and without a poll of a queue."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from runnerd.control.backend.delivery_order import Occupied, arrange
from runnerd.core.prefect import WorkQueue
from runnerd.prefect_api.answers import ApiRefusal
from tests.kits.contract import Server, new_id
from tests.kits.contract_pools import Place, at_pool


async def listed(at: Place, *queues: WorkQueue, minutes: float = 1, limit: int = 200) -> list[tuple[str, str | None]]:
    before = datetime.now(UTC) + timedelta(minutes=minutes)
    waiting = at.visit.api.pools.waiting
    page = await at.visit.insist(lambda: waiting.first_runs(at.pool, queues, before=before, limit=limit))
    assert page.full is (len(page) == limit)
    return [(run.id, run.queue) for run in page]


async def test_what_waits_is_listed_also_where_it_is_paused_and_without_a_poll(server: Server) -> None:
    async with at_pool(server) as at:
        queue, default = await at.queue("q"), await at.pools.read_queue(at.pool, "default")
        on_queue, plain = await at.deploy("q"), await at.deploy()
        late, early = await at.run(on_queue, minutes=-1), await at.run(plain, minutes=-2)
        await at.run(plain, minutes=30)  # not due
        both = [(early, "default"), (late, "q")]
        assert await listed(at, queue, default) == both
        assert await listed(at, queue, default, limit=1) == both[:1]
        assert await listed(at, queue) == both[1:]
        assert await at.pools.update_queue(at.pool, "q", {"is_paused": True})
        assert await at.pools.update_pool(at.pool, {"is_paused": True})
        assert await listed(at, queue, default) == both
        for name in ("q", "default"):
            assert (await at.pools.read_queue(at.pool, name)).last_polled is None


async def test_what_is_delivered_is_what_a_worker_would_be_offered(server: Server) -> None:
    async with at_pool(server) as at:
        urgent, low = await at.queue("urgent", priority=1, concurrency_limit=2), await at.queue("low")
        on_urgent, on_low = await at.deploy("urgent"), await at.deploy("low")
        running, pending = await at.run(on_urgent), await at.run(on_low)
        await at.enter(pending, "PENDING")
        await at.enter(running, "PENDING")
        await at.enter(running, "RUNNING")
        for minutes in (-3, -2):
            await at.run(on_urgent, minutes=minutes)
            await at.run(on_low, minutes=minutes)
        assert await at.pools.update_pool(at.pool, {"concurrency_limit": 4})
        pool, waiting = await at.pools.read_pool(at.pool), at.visit.api.pools.waiting
        occupied = Occupied(
            pool=await at.visit.insist(lambda: waiting.occupied(at.pool)),
            queues={"urgent": await at.visit.insist(lambda: waiting.occupied(at.pool, [urgent]))},
        )
        assert occupied == Occupied(pool=2, queues={"urgent": 1})
        now = datetime.now(UTC) + timedelta(minutes=1)
        found = await at.visit.insist(lambda: waiting.first_runs(at.pool, [urgent, low], before=now))
        arranged = arrange(pool, [urgent, low], found, occupied)
        offered = await at.ids(urgent, low)
        assert len(offered) == 2
        assert [run.id for run, why in arranged if why is None] == offered
        assert sorted(why.partition(" ")[0] for _, why in arranged if why is not None) == ["pool", "queue"]


async def test_paused_deployments_of_pools(server: Server) -> None:
    async with at_pool(server) as at:
        paused, _ = await at.deploy(), await at.deploy()
        assert await at.visit.insist(lambda: at.visit.api.pause_deployment(paused))
        waiting = at.visit.api.pools.waiting
        found = await at.visit.insist(lambda: waiting.paused_deployments([at.pool]))
        assert not isinstance(found, ApiRefusal)
        assert [one.id for one in found] == [paused]


async def test_runs_that_may_be_bound_to_their_process(server: Server) -> None:
    async with at_pool(server) as at:
        deployment, queries = await at.deploy(), at.visit.api.queries
        paused, suspended, _ = [await at.run(deployment, minutes=-1) for _ in range(3)]
        until = (datetime.now(UTC) + timedelta(minutes=5)).replace(microsecond=0)
        for run_id, name in ((paused, "Paused"), (suspended, "Suspended")):
            for kind in ("PENDING", "RUNNING"):
                await at.enter(run_id, kind)
            details = {"pause_timeout": until.isoformat(), "pause_reschedule": name == "Suspended"}
            state = {"type": "PAUSED", "name": name, "state_details": details}
            answer = await at.visit.raw("POST", f"/flow_runs/{run_id}/set_state", {"state": state})
            assert answer.json()["status"] == "ACCEPT", answer.text
        by_deployment = await at.visit.insist(lambda: queries.bound_runs(deployments=[deployment], pools=[]))
        by_pool = await at.visit.insist(lambda: queries.bound_runs(deployments=[], pools=[at.pool]))
        for found in (by_deployment, by_pool):
            (run,) = found
            assert (run.id, run.state.needs_process, run.state.pause_until) == (paused, True, until)
            assert run.state.since is not None
            assert abs(datetime.now(UTC) - run.state.since) < timedelta(minutes=5)


async def test_whose_child_a_run_is(server: Server) -> None:
    async with at_pool(server) as at:
        parent = await at.run(await at.deploy(), minutes=60)
        body = {"flow_run_id": parent, "task_key": "child", "dynamic_key": "0"}
        answer = await at.visit.raw("POST", "/task_runs/", body)
        assert answer.status_code == 201, answer.text
        task_run, nobody = str(answer.json()["id"]), new_id()
        queries = at.visit.api.queries
        found = await at.visit.insist(lambda: queries.flow_runs_of([task_run, nobody]))
        assert found == {task_run: parent}
