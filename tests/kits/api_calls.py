"""Every call of the API's client, and the valid answers to each, recorded from a FakePrefect."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from runnerd.core.prefect import FlowRun, Inspection, NewPool, NewQueue, StateType, Verdict, WorkQueue
from runnerd.core.settings import Schedule
from runnerd.prefect_api.client import PrefectApi
from runnerd.prefect_api.credentials import Credentials
from runnerd.prefect_api.dialect import deployment_body
from runnerd.prefect_api.parse import parse_flow_run
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.nouns import URL, a_deployment

Json = Any
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
LATER = NOW + timedelta(days=1)
Call = Callable[[PrefectApi, "Names"], Awaitable[object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What the calls ask for."""

    major: int
    run: str
    flow: str
    deployment: str
    queue: str
    block: str
    task_run: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """The answers to one call, in order: the request's method and path, the status and the JSON."""

    call: Call
    names: Names
    answers: list[tuple[str, int, Json]] = field(default_factory=list)


def flow_run(names: Names) -> FlowRun:
    data = {"id": names.run, "flow_id": names.flow, "state": {"type": "SCHEDULED"}, "empirical_policy": {"retries": 1}}
    return parse_flow_run(data)


def _body(names: Names) -> Any:
    schedules = (Schedule(cron="0 7 * * *", max_scheduled_runs=3),)
    inspection = Inspection(flow_name="etl", description=None, parameter_schema={}, prefect_version="3.9.1", file=None)
    return deployment_body(a_deployment(schedules=schedules), inspection, major=names.major)


def _verdict(kind: StateType) -> Verdict:
    return Verdict(type=kind)


CALLS: dict[str, Call] = {
    "server": lambda api, n: api.server(),
    "scheduled_runs": lambda api, n: api.scheduled_runs(deployment_ids=[n.deployment], before=LATER),
    "claim": lambda api, n: api.claim(n.run, transition_id="mine"),
    "renew_lease": lambda api, n: api.renew_lease(n.run),
    "release_retry": lambda api, n: api.release_retry(flow_run(n)),
    "propose": lambda api, n: api.propose(n.run, _verdict(StateType.RUNNING), transition_id="mine"),
    "read_run": lambda api, n: api.read_run(n.run),
    "history": lambda api, n: api.history(n.run),
    "runs_of": lambda api, n: api.runs_of([n.run], states=list(StateType)),
    "create_run": lambda api, n: api.create_run(n.deployment, parameters={"x": 1}, name="by hand"),
    "ensure_flow": lambda api, n: api.ensure_flow("etl"),
    "read_flow": lambda api, n: api.read_flow(n.flow),
    "apply_deployment": lambda api, n: api.apply_deployment(_body(n), flow_id=n.flow),
    "read_deployments": lambda api, n: api.read_deployments([n.deployment]),
    "find_deployment": lambda api, n: api.find_deployment("etl", "nightly"),
    "pause_deployment": lambda api, n: api.pause_deployment(n.deployment),
    "resume_deployment": lambda api, n: api.resume_deployment(n.deployment),
    "read_pool": lambda api, n: api.pools.read_pool("etl"),
    "all_pools": lambda api, n: api.pools.all_pools(),
    "create_pool": lambda api, n: api.pools.create_pool(NewPool(name="new")),
    "update_pool": lambda api, n: api.pools.update_pool("etl", {"concurrency_limit": 3}),
    "queues": lambda api, n: api.pools.queues("etl"),
    "read_queue": lambda api, n: api.pools.read_queue("etl", "default"),
    "create_queue": lambda api, n: api.pools.create_queue(NewQueue(pool="etl", name="new")),
    "update_queue": lambda api, n: api.pools.update_queue("etl", "urgent", {"priority": 1}),
    "delete_queue": lambda api, n: api.pools.delete_queue("etl", "urgent"),
    "pool runs": lambda api, n: api.pools.runs("etl", queues={n.queue: "default"}, before=LATER),
    "tagged_runs": lambda api, n: api.pools.tagged_runs(n.queue, before=LATER),
    "waiting runs": lambda api, n: api.pools.waiting.first_runs(
        "etl", [WorkQueue(id=n.queue, name="default")], before=LATER
    ),
    "occupied": lambda api, n: api.pools.waiting.occupied("etl"),
    "paused_deployments": lambda api, n: api.pools.waiting.paused_deployments(["etl"]),
    "bound_runs": lambda api, n: api.queries.bound_runs(deployments=[n.deployment], pools=["etl"]),
    "flow_runs_of": lambda api, n: api.queries.flow_runs_of([n.task_run]),
    "placed_run": lambda api, n: api.pools.placed_run(n.run),
    "heartbeat": lambda api, n: api.pools.heartbeat("etl", worker="host-1", interval_s=30),
    "workers": lambda api, n: api.pools.workers("etl"),
    "worker_types": lambda api, n: api.pools.worker_types(),
    "pool deployment": lambda api, n: api.pools.deployment(n.deployment),
    "block_by_id": lambda api, n: api.pools.block_by_id(n.block),
    "block_by_name": lambda api, n: api.pools.block_by_name("secret", "key"),
    "variable": lambda api, n: api.pools.variable("where"),
    "note_infrastructure": lambda api, n: api.pools.note_infrastructure(n.run, "host-1:17"),
    "emit_event": lambda api, n: api.pools.emit_event({"event": "prefect.worker.started"}),
    "label_run": lambda api, n: api.pools.label_run(n.run, {"prefect.worker.name": "host-1"}),
    "delete_deployment": lambda api, n: api.delete_deployment(n.deployment),
    "delete_pool": lambda api, n: api.pools.delete_pool("etl"),
}


def _a_server(major: int) -> tuple[FakePrefect, Names]:
    """A server that has one of everything the calls ask for."""
    fake = FakePrefect(major=major)
    pools = fake.pools
    pools.create_pool("etl", concurrency_limit=5)
    pools.create_queue("etl", "urgent", priority=1, concurrency_limit=2)
    deployment = pools.add_deployment("etl", name="nightly", flow="etl")
    run = pools.add_run(deployment, due=NOW, parameters={"rows": [1, 2.5, None]}, tags=["a", "b"])
    pools.heartbeat("etl", worker="host-1", interval_s=30)
    pools.add_worker_type("process", "prefect", {"job_configuration": {}, "variables": {}})
    pools.set_variable("where", "here")
    fake.task_runs[task_run := "3d0f2b61-3f3b-4d8e-9f66-6f4b0a1c2d3e"] = run
    names = Names(
        major=major,
        task_run=task_run,
        run=run,
        flow=fake.runs[run]["flow_id"],
        deployment=deployment,
        queue=pools.read_queue("etl", "default").id,
        block=pools.add_block("secret", "key", {"value": "hunter2"}),
    )
    return fake, names


def recorded(name: str, major: int) -> Recorded:
    """What a call is answered by a server in whose state it succeeds."""
    fake, names = _a_server(major)
    record = Recorded(call=CALLS[name], names=names)
    inner = fake.transport()

    async def answer(request: httpx.Request) -> httpx.Response:
        response = await inner.handle_async_request(request)
        content = await response.aread()
        data = None if not content else httpx.Response(200, content=content).json()
        record.answers.append((f"{request.method} {request.url.raw_path.decode()}", response.status_code, data))
        return response

    async def use() -> None:
        client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
        api = PrefectApi(url=URL, credentials=Credentials, headers={}, timeout_s=60, now=lambda: NOW, client=client)
        try:
            await record.call(api, names)
        finally:
            await api.close()

    asyncio.run(use())
    return record
