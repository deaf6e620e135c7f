"""csrf.py: tokens for changes, at servers that want them and at those that do not."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import httpx
import pytest

from runnerd.core.errors import ApiDenied
from tests.kits.nouns import Json
from tests.kits.transport import NOW, Rig, csrf_server, says


class Csrf:
    """A server that wants tokens: one per client, each good until `expire`."""

    def __init__(self) -> None:
        self.token: dict[str, str] = {}
        self.fetched = 0
        self.refusal = "Invalid CSRF token or client identifier."
        self.lasts = timedelta(hours=1)
        self.expiration: Json = None  # sent instead

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/csrf-token"):
            self.fetched += 1
            client = request.url.params["client"]
            self.token[client] = f"token{self.fetched}"
            expiration = self.expiration or (NOW + self.lasts * self.fetched).isoformat()
            return httpx.Response(200, json={"token": self.token[client], "client": client, "expiration": expiration})
        if request.method == "GET":
            return httpx.Response(200, json="read")
        client = request.headers.get("Prefect-Csrf-Client", "")
        if self.token.get(client) != request.headers.get("Prefect-Csrf-Token", "none"):
            return httpx.Response(403, json={"detail": self.refusal})
        return httpx.Response(201, json="changed")


def guarded() -> tuple[Rig, Csrf]:
    server = Csrf()
    rig = Rig(csrf_server)
    client = httpx.AsyncClient(
        transport=httpx.MockTransport(lambda request: rig.seen.append(request) or server(request))
    )
    rig.transport._pool._open = lambda url: client
    return rig, server


async def test_a_token_is_fetched_once_and_only_for_changes() -> None:
    rig, server = guarded()
    assert (await rig.ask("GET")).data == "read" and server.fetched == 0
    for method in ("POST", "PATCH", "DELETE", "PUT"):
        assert (await rig.ask(method)).data == "changed"
    assert server.fetched == 1


async def test_an_expired_token_is_replaced_before_it_is_used() -> None:
    rig, server = guarded()
    await rig.ask("POST")
    rig.clock.at += server.lasts
    await rig.ask("POST")
    assert server.fetched == 2
    assert [request.url.path for request in rig.seen].count("/api/x") == 2


@pytest.mark.parametrize(
    ("expiration", "fetched"),
    [
        ("9999-12-31T23:59:59.999999-14:00", 1),
        ("99999-01-01T00:00:00Z", 1),
        ("9" * 5000, 1),
        (10**400, 1),
        ({"at": "never"}, 1),
        ("0001-01-01T00:00:00+14:00", 3),
    ],
)
async def test_an_expiry_beyond_any_date_is_that_of_a_good_token(expiration: Json, fetched: int) -> None:
    rig, server = guarded()
    server.expiration = expiration
    for _ in range(3):
        assert (await rig.ask("POST")).data == "changed"
    assert server.fetched == fetched


@pytest.mark.parametrize("words", ["Invalid CSRF token or client identifier.", "Missing client identifier."])
async def test_a_token_that_the_server_forgot_is_fetched_again(words: str) -> None:
    rig, server = guarded()
    await rig.ask("POST")
    server.token.clear()
    server.refusal = words
    assert (await rig.ask("POST")).data == "changed"
    assert server.fetched == 2


async def test_a_token_is_fetched_again_only_once() -> None:
    def never(request: httpx.Request) -> httpx.Response:
        return httpx.Response(403, json={"detail": "Invalid CSRF token or client identifier."})

    rig = Rig(never)
    await rig.fail(ApiDenied, "POST")
    assert [request.url.path for request in rig.seen].count("/api/csrf-token") == 2


async def test_changes_at_the_same_time_share_one_token() -> None:
    rig, server = guarded()
    replies = await asyncio.gather(*(rig.ask("POST") for _ in range(5)))
    assert [reply.data for reply in replies] == ["changed"] * 5
    assert server.fetched == 1


async def test_a_server_without_csrf_is_asked_for_a_token_once() -> None:
    rig = Rig(says(200))
    for _ in range(3):
        await rig.ask("POST")
    assert [request.url.path for request in rig.seen].count("/api/csrf-token") == 1
    assert "Prefect-Csrf-Client" not in rig.seen[-1].headers
