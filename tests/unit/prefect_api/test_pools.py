"""pools.py: what is asked of work pools: pages, paths, and denials that are true ones."""

from __future__ import annotations

import json
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx
import pytest

from runnerd.core.errors import ApiAway, ApiDenied, ApiRejected
from runnerd.core.prefect import (
    ApiCondition,
    FlowRun,
    NewPool,
)
from runnerd.prefect_api.answers import ApiRefusal
from runnerd.prefect_api.client import PAGE, PrefectApi
from runnerd.prefect_api.credentials import Credentials
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.nouns import an_id
from tests.kits.pool_answers import BLOCK, NOW, OFFERED, POOL

T = TypeVar("T")
SOME = str(uuid.uuid4())


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


# --- asking ---------------------------------------------------------------------------------------------------


async def test_runs_that_cannot_be_read_are_left_out_and_counted() -> None:
    async def use(api: PrefectApi) -> list[FlowRun] | None:
        found = await api.pools.runs("etl", queues={}, before=NOW)
        assert (api.skipped.count, api.skipped.why) == (2, f"{an_id('x')}: unknown state type null")
        return found

    found = await ask(Server(data=[7, OFFERED, {"flow_run": {"id": an_id("x"), "flow_id": an_id("f")}}]), use)
    assert found is not None and [run.id for run in found] == [an_id("r")]


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


# --- refusals -------------------------------------------------------------------------------------------------


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
    assert await ask(server, lambda api: api.pools.create_pool(NewPool(name="etl", type="x"))) == ApiRefusal(
        reason=reason
    )
    assert await ask(server, lambda api: api.pools.update_pool("etl", {"is_paused": True})) == ApiRefusal(reason=reason)


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
