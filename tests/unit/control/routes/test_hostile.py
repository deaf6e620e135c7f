"""Requests that no proper client sends: on every route of both doors each gets one short problem, and no change."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runnerd.control.http.listener import Listener
from runnerd.control.http.router import Access, Router
from runnerd.control.routes.table import build_routes
from tests.kits.fakes.fake_host import FakeHost
from tests.kits.fakes.raw_http import ask, connect, parse, read_all
from tests.kits.fakes.serving import ListLog, Serving

NAMES = {
    "long": "a" * 60_000,
    "longer than a name": "a" * 501,
    "NUL": "a%00b",
    "line break": "a%0d%0ab",
    "escape": "%1b%5b2J",
    "C1": "%c2%9b2J",
    "surrogate": "%ed%a0%80",
    "no UTF-8": "%ff%fe",
}
BODIES = {
    "no JSON": b"{",
    "no UTF-8": b'{"name": "\xff"}',
    "UTF-16": '{"name": "a"}'.encode("utf-16"),
    "surrogate": b'{"name": "\\ud800"}',
    "surrogate in a key": b'{"\\udc00": 1}',
    "deep": b'{"parameters": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a little too deep": b'{"parameters": {"a": ' + b"[" * 101 + b"]" * 101 + b"}}",
    "NaN": b'{"timeout_s": NaN}',
    "infinite": b'{"timeout_s": -Infinity}',
    "1e999": b'{"timeout_s": 1e999, "concurrency_limit": 1e999}',
    "many digits": b'{"concurrency_limit": ' + b"9" * 5000 + b"}",
    "twice": b'{"all": true, "all": false}',
    "unknown": b'{"no_such_member": 1}',
    "a list": b"[]",
    "many": json.dumps({"runs": ["a"] * 1001, "tags": ["a"] * 1001}).encode(),
    "long names": json.dumps({"runs": ["a" * 501], "name": "a" * 501, "reason": "a" * 501}).encode(),
    "control characters": json.dumps({"runs": ["a\0"], "name": "a\n", "reason": "\x9b", "tags": ["\x07"]}).encode(),
    "10^20": b'{"timeout_s": 1e20, "concurrency_limit": 100000000000000000000, "priority": 100000000000000000000}',
    "a long text": json.dumps({"description": "a" * 10_001, "name": "\t"}).encode(),
}
ROUTES = build_routes(host=FakeHost(outputs=Path("/nowhere")), log=ListLog())
CHANGES = [route.path for route in ROUTES if route.method == "POST"]
NAMED = [(route.method, route.path) for route in ROUTES if "*" in route.path]


@pytest.fixture
def served(served: Serving) -> Iterator[Serving]:
    """No request of this file changes anything, nor ends in a traceback."""
    served.call(served.host.runs.put, "aaaa1111-0000-4000-8000-000000000001")
    served.call(served.host.deployments.put, "d-1", "x")
    yield served
    assert served.host.asked == []
    assert [line for line in served.log.lines if line[0] != "info"] == []


def detail(answer: tuple[int, object]) -> str:
    """The one line of a refusal."""
    status, problem = answer
    assert 400 <= status < 500
    assert isinstance(problem, dict)
    words = str(problem["detail"])
    assert words.isprintable()
    assert 10 < len(words) < 400
    return words


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_name_in_a_path(served: Serving, name: str) -> None:
    for method, path in NAMED:
        detail(ask(served, method, path.replace("*", name), b"{}" if method == "POST" else None))


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_body(served: Serving, body: bytes) -> None:
    for path in CHANGES:
        detail(ask(served, "POST", path.replace("*", "x"), body))


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_query(served: Serving, name: str) -> None:
    for where in ("runs?state=", "runs?deployment=", "events?run=", "preview?hours=", "runs/aaaa1111/logs?offset="):
        detail(ask(served, "GET", f"/v1/{where}{name}"))
    detail(ask(served, "GET", f"/v1/runs?{name}=1"))


def test_a_query_that_is_not_known_or_repeated(served: Serving) -> None:
    words = detail(ask(served, "GET", "/v1/runs?histroy=1"))
    assert words == "'histroy' is not known in the query; known are deployment, history, state"
    assert detail(ask(served, "GET", "/v1/status?x=1")) == "'x' is not known in the query; the path takes no query"
    assert detail(ask(served, "GET", "/v1/runs?state=a&state=b")) == "the request's query has a key twice; remove one"
    assert ask(served, "GET", "/v1/health?probe=7")[0] == 200  # load balancers add keys of their own


def test_numbers_of_a_query(served: Serving) -> None:
    for number in ("1" * 400, "-1", "1e9", "NaN", "100000000000000000000", "%D9%A3"):
        for where in ("preview?hours=", "pools/p/preview?hours=", "runs/aaaa1111/logs?offset=", "runs?history="):
            detail(ask(served, "GET", f"/v1/{where}{number}"))


@pytest.mark.parametrize("length", ["1" * 19, "1" * 5000, "-1", "1_0"])
def test_a_content_length(served: Serving, length: str) -> None:
    with connect(served) as client:
        client.sendall(f"POST /v1/drain HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode())
        assert 400 <= parse(read_all(client))[0] < 500


def test_a_change_of_a_name_that_is_too_long_is_not_kept(served: Serving) -> None:
    words = detail(ask(served, "POST", "/v1/drain", {"reason": "x" * 60_000}))
    assert words == "'reason' has 60000 characters; a name has at most 500"
    assert served.call(served.host.status)["drain"] is None


@contextmanager
def public(served: Serving) -> Iterator[tuple[str, int]]:
    """The public door: the same listener with the public routes, over TCP."""
    routes = [route for route in build_routes(host=served.host, log=served.log) if route.access is Access.PUBLIC]
    listener = Listener(router=Router(routes, guard=None), log=served.log)
    listening = socket.create_server(("127.0.0.1", 0))
    asyncio.run_coroutine_threadsafe(listener.start([listening]), served.loop).result(60)
    try:
        yield listening.getsockname()
    finally:
        asyncio.run_coroutine_threadsafe(listener.close(), served.loop).result(60)


def test_the_public_door(served: Serving) -> None:
    with public(served) as address:
        for name in NAMES.values():
            for target in (f"/v1/health?{name}=1", f"/v1/metrics?a={name}", f"/v1/{name}", f"/v1/runs/{name}/cancel"):
                with socket.create_connection(address) as client:
                    client.settimeout(60)
                    client.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                    status, _, body = parse(read_all(client))
                assert 400 <= status < 500
                assert len(body) < 1000
