"""event_socket.py: what is said to Prefect's event stream, and what is read of an event."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime

import pytest

from runnerd.prefect_api import event_socket
from runnerd.prefect_api.credentials import Credentials
from runnerd.prefect_api.event_socket import EventSocket, PrefectEvent, choose_events, parse_event
from runnerd.prefect_api.prefect_socket import SocketAccess, introduce
from runnerd.prefect_api.websocket import Closed, Refusal, WebSocket
from tests.kits.nouns import Json
from tests.kits.websocket_peer import Peer, end

RUN, DEPLOYMENT, POOL = (f"{letter * 8}-1111-4111-8111-{letter * 12}" for letter in "abc")
NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


def an_event(name: str = "prefect.flow-run.Scheduled", **changes: Json) -> Json:
    event = {
        "id": "1",
        "event": name,
        "resource": {"prefect.resource.id": f"prefect.flow-run.{RUN}", "prefect.resource.name": "odd-name"},
        "related": [
            {"prefect.resource.id": f"prefect.deployment.{DEPLOYMENT}", "prefect.resource.role": "deployment"},
            {"prefect.resource.id": f"prefect.work-pool.{POOL}", "prefect.resource.name": "etl"},
        ],
    }
    return {"type": "event", "event": event | changes}


async def greet(socket: WebSocket, *, credentials: Credentials, since: datetime) -> EventSocket | Refusal:
    refusal = await introduce(socket, credentials=credentials)
    return refusal if refusal is not None else await choose_events(socket, since=since)


async def greeted(credentials: Credentials, *answers: object) -> tuple[EventSocket | Refusal, Peer]:
    peer = Peer(clock=asyncio.get_running_loop().time)
    assert await peer.shake_hands() is None
    peer.say(*answers)
    return await greet(peer.socket, credentials=credentials, since=NOW), peer


@pytest.mark.parametrize(
    ("credentials", "token"),
    [(Credentials(), None), (Credentials(key="k"), "k"), (Credentials(auth_string="u:p"), "u:p")],
)
async def test_the_greeting(credentials: Credentials, token: str | None) -> None:
    found, peer = await greeted(credentials, {"type": "auth_success"}, an_event())
    assert isinstance(found, EventSocket)
    auth, asked = peer.texts()
    assert auth == {"type": "auth", "token": token}
    assert (asked["type"], asked["backfill"]) == ("filter", False)
    assert asked["filter"]["occurred"]["since"] == "2026-11-30T11:00:00+00:00", "clocks are apart"
    assert "prefect.flow-run.Cancelling" in asked["filter"]["event"]["prefix"]
    event = await found.receive()
    assert event == PrefectEvent(
        id="1", name="prefect.flow-run.Scheduled", run_id=RUN, deployment_id=DEPLOYMENT, pool="etl"
    )
    assert event.run_state == "Scheduled"
    peer.send(end(1001))
    assert isinstance(await found.receive(), Closed)


async def test_a_server_that_does_not_accept_the_key() -> None:
    peer = Peer(clock=asyncio.get_running_loop().time)
    assert await peer.shake_hands() is None
    peer.send(end(1008, "Invalid token"))
    found = await greet(peer.socket, credentials=Credentials(key="wrong"), since=NOW)
    assert isinstance(found, Refusal) and found.status == 401 and "wrong" not in repr(found)
    assert peer.closed


@pytest.mark.parametrize("answer", ["", "[]", "null", '{"type": "hello"}', "[" * 100_000, "{"])
async def test_a_server_that_is_not_prefect(answer: str) -> None:
    found, peer = await greeted(Credentials(), answer)
    assert found == Refusal(why="the answer is not that of Prefect") and peer.closed


async def test_a_server_that_never_answers_the_greeting() -> None:
    peer = Peer(clock=asyncio.get_running_loop().time)
    assert await peer.shake_hands() is None
    found = await greet(peer.socket, credentials=Credentials(), since=NOW)
    assert isinstance(found, Refusal) and found.status is None and peer.closed


@pytest.mark.parametrize(
    "text",
    [
        "", "nonsense", "[" * 100_000, "[1]", "1e999", '{"event": []}', '{"event": {"event": 1}}',
        json.dumps(an_event("prefect.task-run.Running")), json.dumps(an_event("prefect.flow-run.Completed")),
    ],
)  # fmt: skip
def test_what_is_no_event_for_a_host(text: str) -> None:
    assert parse_event(text) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"resource": None, "related": None},
        {"resource": [], "related": {}},
        {"resource": {"prefect.resource.id": 7}, "related": [1, None, {"prefect.resource.id": ["x"]}]},
        {"resource": {"prefect.resource.id": "prefect.flow-run.../../x"}, "related": []},
        {"id": {}},
    ],
)
def test_odd_parts_of_an_event_are_left_out(changes: dict[str, Json]) -> None:
    event = parse_event(json.dumps(an_event(**changes)))
    assert event is not None and event.name == "prefect.flow-run.Scheduled"
    assert event.run_id in (None, RUN)


async def test_a_proxy_in_the_environment_means_no_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    access = SocketAccess(
        url="https://prefect.example/api",
        credentials=Credentials,
        headers={},
        clock=asyncio.get_running_loop().time,
        note_sent=lambda: None,
    )
    found = await event_socket.subscribe(access, now=lambda: NOW)
    assert isinstance(found, Refusal) and found.status == 405 and "proxy" in found.why
