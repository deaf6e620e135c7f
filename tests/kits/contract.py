"""What the contract suite is written with: a server, real or fake, and one test's dealings with it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import httpx
import pytest

from runnerd.core.errors import ApiAway
from runnerd.core.place import Place
from runnerd.core.prefect import DeploymentInfo, FlowRun, Inspection, StateType, Verdict
from runnerd.core.settings import Deployment, RunSettings
from runnerd.prefect_api.answers import Answer, DeploymentBody
from runnerd.prefect_api.client import PrefectApi
from runnerd.prefect_api.credentials import Credentials
from runnerd.prefect_api.dialect import deployment_body, schedule_bodies, version_of
from runnerd.prefect_api.schedule_changes import SentSchedule
from tests.kits.fakes.fake_prefect import FakePrefect

T = TypeVar("T")
Json = Any
NOBODY = str(uuid.UUID(int=7))
SCHEMA = {
    "title": "Parameters",
    "type": "object",
    "properties": {"x": {"title": "x", "type": "integer", "default": 1, "position": 0}},
}


@dataclass(frozen=True)
class Server:
    """A server, real or fake."""

    url: str
    major: int
    version: str
    fake: FakePrefect | None = None

    def skip_before(self, version: str, why: str) -> None:
        """Skip the test on a server of the same major that is older than `version` (make oldest-prefect)."""
        if self.is_before(version):
            pytest.skip(f"before {version}, {why}")

    def is_before(self, version: str) -> bool:
        own, needed = version_of(self.version), version_of(version)
        assert own is not None and needed is not None
        return own[0] == needed[0] and own < needed

    @asynccontextmanager
    async def visit(self) -> AsyncIterator[Visit]:
        """An API client at it."""
        client = None if self.fake is None else httpx.AsyncClient(transport=self.fake.transport())
        raw = httpx.AsyncClient(base_url=self.url, timeout=60, transport=None if client is None else client._transport)
        api = PrefectApi(
            url=self.url,
            credentials=Credentials,
            headers={},
            timeout_s=60,
            now=lambda: datetime.now(UTC),
            client=client,
        )
        async with raw:
            try:
                yield Visit(api, raw, self.major)
            finally:
                await api.close()


class Visit:
    """One test's dealings with a server; `api` asks again when a server on SQLite says 503, as they do."""

    def __init__(self, api: PrefectApi, raw: httpx.AsyncClient, major: int) -> None:
        self.api = api
        self.major = major
        self._raw = raw

    async def insist(self, call: Callable[[], Awaitable[T]]) -> T:
        for _ in range(100):
            try:
                return await call()
            except ApiAway:
                await asyncio.sleep(0.1)
        return await call()

    async def raw(self, method: str, path: str, body: Json = None) -> httpx.Response:
        """A request past our client, for what the UI or a flow process would do."""
        for _ in range(100):
            response = await self._raw.request(method, path, json=body)
            if response.status_code < 500:
                return response
            await asyncio.sleep(0.1)
        return response

    async def deploy(self, wanted: Deployment | None = None, **changes: Any) -> DeploymentInfo:
        return await self.update(wanted or deployment(**changes))

    async def update(
        self,
        wanted: Deployment,
        *,
        paused: bool | None = None,
        sent: Sequence[SentSchedule] = (),
        inspection: Inspection | None = None,
    ) -> DeploymentInfo:
        body = self.body(wanted, inspection)
        flow_id = await self.insist(lambda: self.api.ensure_flow("contract", []))
        return await self.insist(
            lambda: self.api.apply_deployment(
                body, flow_id=flow_id, paused=wanted.paused if paused is None else paused, sent=sent
            )
        )

    def sent(self, wanted: Deployment, info: DeploymentInfo) -> list[SentSchedule]:
        """What a host remembers of the schedules that it sent."""
        bodies = schedule_bodies(wanted, major=self.major)
        return [SentSchedule(known, body) for known, body in zip(info.schedule_ids, bodies, strict=True)]

    def body(self, wanted: Deployment, inspection: Inspection | None = None) -> DeploymentBody:
        made = deployment_body(wanted, inspection or INSPECTION, major=self.major)
        assert isinstance(made, DeploymentBody), made
        return made

    async def stored(self, deployment_id: str) -> Json:
        return (await self.raw("GET", f"/deployments/{deployment_id}")).json()

    async def new_run(self, deployment_id: str | None = None) -> FlowRun:
        where = deployment_id or (await self.deploy()).id
        made = await self.insist(lambda: self.api.create_run(where, parameters={}, idempotency_key=new_id()))
        assert isinstance(made, FlowRun), made
        return made

    async def in_state(self, *path: str) -> FlowRun:
        """A new run that was taken through these states, as its flow process or a user would."""
        run = await self.new_run()
        for kind in path:
            state: Json = {"type": kind}
            if kind == "PAUSED":
                state["state_details"] = {"pause_timeout": text(1), "pause_reschedule": True}
            if kind == "SCHEDULED":
                state |= {"name": "AwaitingRetry", "state_details": {"scheduled_time": text(1)}}
            answer = (await self.raw("POST", f"/flow_runs/{run.id}/set_state", {"state": state})).json()
            assert answer["status"] == "ACCEPT", answer
        return run

    async def propose(self, run_id: str, verdict: Verdict, transition_id: str | None = None) -> Answer:
        chosen = transition_id or new_id()
        return await self.insist(lambda: self.api.propose(run_id, verdict, transition_id=chosen))

    async def state_of(self, run_id: str) -> StateType:
        run = await self.insist(lambda: self.api.read_run(run_id))
        assert run is not None
        return run.state.type


def new_id() -> str:
    return str(uuid.uuid4())


def text(minutes: float) -> str:
    return (datetime.now(UTC) + timedelta(minutes=minutes)).isoformat()


INSPECTION = Inspection(
    flow_name="contract",
    description="What the code says.",
    parameter_schema=SCHEMA,
    prefect_version="3.8.8",
    file=None,
)


def deployment(**changes: Any) -> Deployment:
    plain = Deployment(
        name=f"d-{uuid.uuid4().hex[:8]}",
        entrypoint="flows/etl.py:nightly",
        run=RunSettings(python="/usr/bin/python3", working_directory="/opt/etl"),
        place=Place("20-etl.yaml", 2, 3),
    )
    return replace(plain, **changes)


CANCELLED = Verdict(type=StateType.CANCELLED, message="cancelled here")
WISH = Verdict(type=StateType.CANCELLING)
PENDING, RUNNING, CANCELLING = ("PENDING",), ("PENDING", "RUNNING"), ("PENDING", "RUNNING", "CANCELLING")


async def due(visit: Visit, *deployment_ids: str, limit: int | None = None, minutes: float = 1) -> list[FlowRun]:
    before = datetime.now(UTC) + timedelta(minutes=minutes)
    return await visit.insist(
        lambda: visit.api.scheduled_runs(deployment_ids=deployment_ids, before=before, limit=limit)
    )
