"""What the contract about work pools is written with: a pool for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from runnerd.core.prefect import ApiCondition, FlowRun, NewPool, NewQueue, WorkPool, WorkQueue
from tests.kits.contract import Server, Visit, new_id, text

Json = Any
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
        body["enforce_parameter_schema"] = False  # 3.0 to 3.4 refuse a deployment that is to enforce no schema
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
