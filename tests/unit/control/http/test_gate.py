"""gate.py: which requests over TCP are admitted, by token, Host and Origin."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runnerd.control.http.exchange import Reply, Request, StreamReply, json_reply
from runnerd.control.http.gate import Gate, GateSettings
from runnerd.control.http.guard import Level
from runnerd.control.http.problem import HttpProblem
from runnerd.control.http.router import Access, Route, Router

TOKEN = "0123456789abcdef"
HERE = GateSettings(names={"build-07"}, token=TOKEN)
OTHERS = replace(HERE, open_to_others=True)


async def answer_ok(request: Request, *variables: str) -> Reply:
    return json_reply("ok")


ROUTES = [Route("GET", "/health", answer_ok, Level.READER, Access.PUBLIC),
          Route("POST", "/shutdown", answer_ok, Level.ADMIN, Access.PUBLIC)]  # fmt: skip


async def ask(settings: GateSettings, method: str = "GET", **headers: str) -> int:
    gate = Gate(Router(ROUTES, guard=None))
    gate.settings = settings
    path = ("health",) if method == "GET" else ("shutdown",)
    request = Request(method=method, path=path, query={}, body=b"", peer=None, headers={"host": "localhost", **headers})
    try:
        reply: Reply | StreamReply = await gate.answer(request)
    except HttpProblem as problem:
        if problem.status == 401:
            assert problem.headers["WWW-Authenticate"].startswith("Bearer")
        assert TOKEN not in problem.detail
        return problem.status
    assert isinstance(reply, Reply)
    return reply.status


@pytest.mark.parametrize(
    ("settings", "method", "authorization", "status"),
    [
        (HERE, "GET", None, 200),
        (HERE, "POST", None, 401),
        (HERE, "POST", f"Bearer {TOKEN}", 200),
        (HERE, "POST", f"bearer  {TOKEN} ", 200),
        (HERE, "POST", f"Basic {TOKEN}", 401),
        (HERE, "POST", "Bearer", 401),
        (HERE, "POST", f"Bearer {TOKEN}0", 401),
        (HERE, "POST", f"Bearer {TOKEN[:-1]}", 401),
        (HERE, "POST", "Bearer \u00e9", 401),
        (HERE, "GET", "Bearer wrong", 401),
        (OTHERS, "GET", None, 401),
        (OTHERS, "GET", f"Bearer {TOKEN}", 200),
        (replace(HERE, token=None), "POST", None, 403),
        (replace(HERE, token=None), "POST", "Bearer anything", 403),
        (replace(HERE, token=None), "GET", "Bearer anything", 200),
        (replace(OTHERS, token=None, token_problem="gone"), "GET", f"Bearer {TOKEN}", 503),
        (replace(HERE, token=None, token_problem="gone"), "POST", f"Bearer {TOKEN}", 503),
        (replace(HERE, token=None, token_problem="gone"), "GET", None, 200),
    ],
)
async def test_what_changes_or_comes_from_others_needs_the_token(
    settings: GateSettings, method: str, authorization: str | None, status: int
) -> None:
    headers = {} if authorization is None else {"authorization": authorization}
    assert await ask(settings, method, **headers) == status


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:9464", 200),
        ("127.0.0.1:9464", 200),
        ("127.0.0.1", 200),
        ("[::1]:9464", 200),
        ("BUILD-07:9464", 200),
        ("build-07.", 200),
        ("evil.example:9464", 421),
        ("127.0.0.1.evil.example", 421),
        ("", 421),
        ("10.0.0.1", 421),
        ("[::1", 200),
        ("[evil]", 421),
    ],
)
async def test_a_name_that_is_not_this_hosts_is_refused(host: str, status: int) -> None:
    """A page whose name leads to 127.0.0.1 could read what the browser of a user of this host gets."""
    assert await ask(HERE, host=host) == status
    assert await ask(HERE, host=host, authorization=f"Bearer {TOKEN}") == 200, "no page knows the token"


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost", 200),
        ("http://evil.example", 403),
        ("null", 403),
        ("http://localhost.evil.example", 403),
        ("http://[", 403),
        ("", 403),
    ],
)
async def test_a_page_of_another_site_is_refused_with_a_token_too(origin: str, status: int) -> None:
    assert await ask(HERE, "POST", origin=origin, authorization=f"Bearer {TOKEN}") == status
    assert await ask(HERE, origin=origin) == status


async def test_a_probe_without_a_host_is_none_of_a_browser() -> None:
    gate = Gate(Router(ROUTES, guard=None))
    gate.settings = HERE
    reply = await gate.answer(Request(method="GET", path=("health",), query={}, body=b"", peer=None))
    assert isinstance(reply, Reply) and reply.status == 200
