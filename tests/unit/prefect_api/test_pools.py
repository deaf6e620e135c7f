"""Work pools as no real server tells them: odd answers, pages, paths, and denials that are true ones."""

from __future__ import annotations

import json
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runnerd.core.errors import ApiAway, ApiDenied, ApiRejected
from runnerd.core.prefect import (
    ApiCondition,
    BlockDocument,
    FlowRun,
    NewPool,
    PoolDeployment,
    StateType,
    Variable,
    WorkerSeen,
    WorkerType,
    WorkPool,
    WorkQueue,
)
from runnerd.prefect_api.answers import Refused
from runnerd.prefect_api.client import PAGE, PrefectApi
from runnerd.prefect_api.credentials import Credentials
from runnerd.prefect_api.parse import Unreadable
from runnerd.prefect_api.parse_pools import (
    parse_block,
    parse_pool,
    parse_pool_deployment,
    parse_queue,
    parse_variable,
    parse_worker,
    parse_worker_types,
    pool_run_parser,
)
from tests.kits.fakes.fake_prefect import FakePrefect

T = TypeVar("T")
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
SOME = str(uuid.uuid4())
POOL = {"id": "p", "name": "etl", "type": "process"}
QUEUE = {"id": "q", "name": "default"}
OFFERED = {
    "work_pool_id": "p",
    "work_queue_id": "q",
    "flow_run": {"id": "r", "flow_id": "f", "state": None, "state_type": "SCHEDULED", "state_name": "Late"},
}
BLOCK = {"id": "b", "name": "x", "data": {"a": 1}, "block_type": {"slug": "process"}}
DEPLOYMENT = {"id": "d", "name": "nightly", "flow_id": "f"}
PARSERS: list[Callable[[Any], Any]] = [
    parse_pool,
    parse_queue,
    parse_worker,
    parse_pool_deployment,
    parse_block,
    parse_variable,
    parse_worker_types,
    pool_run_parser("etl", {"q": "default"}),
]
KEYS = sorted({*POOL, *QUEUE, *OFFERED, *OFFERED["flow_run"], *BLOCK, *DEPLOYMENT, "slug", "value", "job_variables"})
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(KEYS) | st.text(), inner),
)


@dataclass
class Server:
    """Answers the same to every request, and remembers them."""

    status: int = 200
    data: Any = None
    asked: list[tuple[str, str, Any]] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/csrf-token"):
            return httpx.Response(422, json={"detail": "CSRF protection is disabled."})
        body = json.loads(request.content) if request.content else None
        self.asked.append((request.method, request.url.raw_path.decode(), body))
        return httpx.Response(self.status, json=self.data)


async def visit(transport: httpx.MockTransport, use: Callable[[PrefectApi], Awaitable[T]]) -> T:
    client = httpx.AsyncClient(transport=transport)
    url = "http://prefect.test/api"
    api = PrefectApi(url=url, credentials=Credentials, headers={}, timeout_s=30, now=lambda: NOW, client=client)
    try:
        return await use(api)
    finally:
        await api.close()


async def ask(server: Server, use: Callable[[PrefectApi], Awaitable[T]]) -> T:
    return await visit(httpx.MockTransport(server), use)


# --- reading ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parse", PARSERS)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(data=ANYTHING)
def test_anything_is_read_or_unreadable(parse: Callable[[Any], Any], data: Any) -> None:
    try:
        assert parse(data) is not None
    except Unreadable as error:
        assert str(error)


@pytest.mark.parametrize(
    ("parse", "data", "expected"),
    [
        (parse_pool, POOL, WorkPool(id="p", name="etl", type="process")),
        (
            parse_pool,
            {**POOL, "concurrency_limit": True, "is_paused": "no", "base_job_template": [], "status": 7},
            WorkPool(id="p", name="etl", type="process"),
        ),
        (
            parse_pool,
            {**POOL, "concurrency_limit": 0},
            WorkPool(id="p", name="etl", type="process", concurrency_limit=0),
        ),
        (parse_queue, QUEUE, WorkQueue(id="q", name="default")),
        (
            parse_queue,
            {**QUEUE, "priority": None, "filter": {}, "last_polled": "2026-11-22T12:00:00Z", "work_pool_name": "etl"},
            WorkQueue(id="q", name="default", filter={}, last_polled=NOW, pool="etl"),
        ),
        (parse_worker, {"name": "w"}, WorkerSeen(name="w", status=None, last_heartbeat=None)),
        (
            parse_pool_deployment,
            {**DEPLOYMENT, "infra_overrides": {"a": 1, "b": 1}, "job_variables": {"b": 2}, "updated": "soon"},
            PoolDeployment(id="d", name="nightly", flow_id="f", job_variables={"a": 1, "b": 2}),
        ),
        (
            parse_pool_deployment,
            {**DEPLOYMENT, "infra_overrides": None, "job_variables": [], "version": 3},
            PoolDeployment(id="d", name="nightly", flow_id="f"),
        ),
        (parse_block, {**BLOCK, "name": None}, BlockDocument(id="b", name=None, type_slug="process", data={"a": 1})),
        (parse_variable, {"name": "v", "value": None}, Variable(name="v", value=None)),
        (
            parse_worker_types,
            {
                "prefect": {"process": {"default_base_job_configuration": {"a": 1}, "description": "d"}, "odd": 7},
                "mine": {"process": {"default_base_job_configuration": {}}, "bare": {}},
                "none": None,
            },
            {"process": WorkerType(type="process", package="prefect", template={"a": 1}, description="d")},
        ),
    ],
)
def test_what_decides_nothing_may_be_odd(parse: Callable[[Any], Any], data: Any, expected: Any) -> None:
    assert parse(data) == expected


@pytest.mark.parametrize(
    ("parse", "data", "why"),
    [
        (parse_pool, {**POOL, "type": None}, "type is missing"),
        (parse_pool, [], "a work pool is not an object"),
        (parse_queue, {**QUEUE, "name": ""}, "name is missing"),
        (parse_worker, {}, "name is missing"),
        (parse_pool_deployment, {"id": "d", "name": "n"}, "flow_id is missing"),
        (parse_block, {**BLOCK, "data": None}, "a block's data is missing"),
        (parse_block, {**BLOCK, "block_type": None}, "a block's type is not an object"),
        (parse_variable, {"name": "v"}, "a variable's value is missing"),
        (parse_worker_types, [], "the listing of worker types is not an object"),
        (pool_run_parser("etl", {}), {"work_queue_id": "q"}, "a flow run is not an object"),
        (pool_run_parser("etl", {}), {"flow_run": {"id": "r", "flow_id": "f"}}, "unknown state type None"),
    ],
)
def test_what_a_run_hangs_on_must_be_there(parse: Callable[[Any], Any], data: Any, why: str) -> None:
    with pytest.raises(Unreadable, match=why):
        parse(data)


@pytest.mark.parametrize(("queues", "queue"), [({"q": "default"}, "default"), ({"other": "x"}, None), ({}, None)])
def test_a_run_knows_its_queue_by_its_id(queues: dict[str, str], queue: str | None) -> None:
    run = pool_run_parser("etl", queues)(OFFERED)
    assert (run.pool, run.queue, run.state.type, run.state.name) == ("etl", queue, StateType.SCHEDULED, "Late")


def test_a_state_that_is_told_is_believed() -> None:
    told = {**OFFERED, "flow_run": {**OFFERED["flow_run"], "state": {"type": "PENDING", "name": "Submitting"}}}
    state = pool_run_parser("etl", {})(told).state
    assert (state.type, state.name) == (StateType.PENDING, "Submitting")


# --- asking -------------------------------------------------------------------------------------------------------


async def test_runs_that_cannot_be_read_are_left_out_and_counted() -> None:
    async def use(api: PrefectApi) -> list[FlowRun] | None:
        found = await api.pools.runs("etl", queues={}, before=NOW)
        assert (api.skipped.count, api.skipped.why) == (2, "unknown state type None")
        return found

    found = await ask(Server(data=[7, OFFERED, {"flow_run": {"id": "r", "flow_id": "f"}}]), use)
    assert found is not None and [run.id for run in found] == ["r"]


@pytest.mark.parametrize(
    ("use", "expected"),
    [
        (lambda pools: pools.runs("etl", queues={}, before=NOW), {}),
        (
            lambda pools: pools.runs("etl", queues={"2": "b", "1": "a", "3": "a"}, before=NOW, after=NOW, limit=999),
            {"work_queue_names": ["a", "b"], "scheduled_after": NOW.isoformat(), "limit": PAGE},
        ),
        (lambda pools: pools.tagged_runs(SOME, before=NOW, limit=3), {"limit": 3}),
    ],
)
async def test_only_what_is_meant_is_asked_for(use: Callable[[Any], Awaitable[Any]], expected: dict[str, Any]) -> None:
    """No names are all queues, no limit is the server's; a limit above its own would be refused."""
    server = Server(data=[])
    assert await ask(server, lambda api: use(api.pools)) == []
    ((_, _, body),) = server.asked
    assert body == {"scheduled_before": NOW.isoformat(), **expected}


@pytest.mark.parametrize(
    ("name", "quoted"), [("a b", "a%20b"), ("a?b#c", "a%3Fb%23c"), ("é", "%C3%A9"), ("a;b=c", "a%3Bb%3Dc")]
)
async def test_names_are_quoted_into_the_path(name: str, quoted: str) -> None:
    server = Server(data=POOL)
    await ask(server, lambda api: api.pools.read_pool(name))
    assert server.asked == [("GET", f"/api/work_pools/{quoted}", None)]


async def test_secrets_are_asked_for() -> None:
    server = Server(data=BLOCK)
    await ask(server, lambda api: api.pools.block_by_id(SOME))
    await ask(server, lambda api: api.pools.block_by_name("process", "x y"))
    assert [path for _, path, _ in server.asked] == [
        f"/api/block_documents/{SOME}?include_secrets=true",
        "/api/block_types/slug/process/block_documents/name/x%20y?include_secrets=true",
    ]


async def test_more_than_a_page_is_found() -> None:
    fake = FakePrefect(major=3)
    for number in range(2 * PAGE + 1):
        fake.pools.create_pool(f"pool-{number:03}")

    async def use(api: PrefectApi) -> None:
        found = await api.pools.all_pools()
        assert [pool.name for pool in found] == [f"pool-{number:03}" for number in range(2 * PAGE + 1)]
        for number in range(PAGE - 1):  # and its default queue
            fake.pools.create_queue("pool-000", f"q-{number:03}")
        assert len(await api.pools.queues("pool-000")) == PAGE
        assert len(await api.pools.queues("pool-000", prefixes=["q-00"])) == 10

    await visit(fake.transport(), use)


# --- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "data", "reason"),
    [
        (409, {"detail": "A work pool with this name already exists."}, "A work pool with this name already exists."),
        (422, {"exception_detail": [{"loc": ["body", "type"], "msg": "no"}]}, "body.type: no"),
        (422, {}, "HTTP 422"),
    ],
)
async def test_the_servers_no_is_a_value(status: int, data: Any, reason: str) -> None:
    server = Server(status=status, data=data)
    assert await ask(server, lambda api: api.pools.create_pool(NewPool(name="etl", type="x"))) == Refused(reason=reason)
    assert await ask(server, lambda api: api.pools.update_pool("etl", {"is_paused": True})) == Refused(reason=reason)


@pytest.mark.parametrize(
    ("status", "data", "error"),
    [
        (403, {"detail": "Forbidden"}, ApiDenied),
        (401, {}, ApiDenied),
        (400, {"detail": "odd"}, ApiAway),  # nothing can be wrong with the question: a proxy's, or a server's trouble
        (404, {"detail": "Not Found"}, ApiAway),  # no such route: not a server's word on a pool
        (503, {}, ApiAway),
        (200, 7, ApiAway),
    ],
)
async def test_other_failures_stay_failures(status: int, data: Any, error: type[Exception]) -> None:
    server = Server(status=status, data=data)
    with pytest.raises(error):
        await ask(server, lambda api: api.pools.read_pool("etl"))


async def test_a_change_that_is_called_wrong_is_refused_as_such() -> None:
    with pytest.raises(ApiRejected):
        await ask(
            Server(status=400, data={"detail": "odd"}), lambda api: api.pools.create_pool(NewPool(name="etl", type="x"))
        )


async def test_a_denied_change_of_a_pool_is_one() -> None:
    with pytest.raises(ApiDenied):
        await ask(Server(status=403, data={"detail": "no"}), lambda api: api.pools.delete_pool("etl"))


async def test_labels_are_not_sent_where_there_are_none() -> None:
    """Nor is it asked for by a 404, which would leave the API looking like a wrong URL."""

    async def use(api: PrefectApi) -> None:
        run_id = fake.pools.add_run(fake.pools.add_deployment(None))
        await api.pools.label_run(run_id, {"a": 1})
        await api.pools.label_run(run_id, {"nothing": None})
        assert api.health.condition is ApiCondition.OK
        assert not [asked for asked in fake.asked if "labels" in asked]

    fake = FakePrefect(major=2)
    await visit(fake.transport(), use)


@pytest.mark.parametrize(
    ("value", "sent"), [("x", "x"), (True, True), (1.5, 1.5), (float("inf"), "Infinity"), ([1], "[1]"), ({}, "{}")]
)
async def test_a_label_is_a_plain_value(value: Any, sent: Any) -> None:
    fake = FakePrefect(major=3)
    run_id = fake.pools.add_run(fake.pools.add_deployment(None))
    await visit(fake.transport(), lambda api: api.pools.label_run(run_id, {"a": value}))
    assert fake.runs[run_id]["labels"] == {"a": sent}
