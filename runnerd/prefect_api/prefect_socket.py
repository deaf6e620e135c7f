"""Opens a WebSocket of Prefect's API (servers of Prefect 3), and makes known who asks: `auth`, then `auth_success`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import httpx

from runnerd import __version__
from runnerd.core.place import Json
from runnerd.prefect_api.connections import is_proxied
from runnerd.prefect_api.credentials import Credentials
from runnerd.prefect_api.failure_words import broken_words
from runnerd.prefect_api.websocket import Closed, Refusal, WebSocket, open_websocket

DENIED = 1008  # the close code of a server that does not accept the credentials, or not this client
RETRY_REFUSED_S = 600.0  # after a refusal that lasts
RETRY_CAP_S = 120.0  # of the back-off after any other end: requests do without the socket meanwhile
GREETING_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketAccess:
    """Holds what opening a socket of the API at `url` needs; `note_sent` is called for each handshake."""

    url: str
    credentials: Callable[[], Credentials]
    headers: Mapping[str, str]
    clock: Callable[[], float]
    note_sent: Callable[[], None]


async def open_socket(access: SocketAccess, route: str) -> WebSocket | Refusal:
    """Open `route`, an absolute path below the API, with credentials. Raises ApiDenied when they cannot be read."""
    base = httpx.URL(access.url.rstrip("/"))
    if is_proxied(base):
        return Refusal(
            status=405, why="the API is reached through a proxy (HTTP_PROXY), which runnerd does not stream through"
        )
    found = access.credentials()
    at = base.copy_with(scheme="wss" if base.scheme == "https" else "ws", raw_path=base.raw_path + route.encode())
    headers = {"User-Agent": f"runnerd/{__version__}", **access.headers, **found.header()}
    access.note_sent()
    socket = await open_websocket(at, subprotocol="prefect", headers=headers, clock=access.clock)
    if isinstance(socket, Refusal):
        return socket
    refusal = await introduce(socket, credentials=found)
    return socket if refusal is None else refusal


async def introduce(socket: WebSocket, *, credentials: Credentials) -> Refusal | None:
    """Send the credentials over an open connection, which is closed when the server refuses; None when it accepts."""
    answer = await exchange(socket, {"type": "auth", "token": credentials.auth_string or credentials.key})
    if not isinstance(answer, Closed) and kind_of(read_json(answer)) == "auth_success":
        return None
    await socket.close()
    return refusal_of(answer)


async def exchange(socket: WebSocket, message: Json) -> str | Closed:
    """Send one message, and return the next that comes, or why none comes in time."""
    try:
        async with asyncio.timeout(GREETING_S):
            await socket.send(json.dumps(message))
            return await socket.receive()
    except OSError as error:  # TimeoutError too
        return Closed(why=broken_words(error))


def refusal_of(answer: str | Closed) -> Refusal:
    """Say why an opening failed, by what came instead of the answer."""
    if isinstance(answer, Closed):
        return Refusal(status=401 if answer.code == DENIED else None, why=answer.why)
    return Refusal(why="the answer is not that of Prefect")


def read_json(text: str) -> Json:
    """Read one message; None when it is no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def kind_of(message: Json) -> Json:
    """Return the type that a message states."""
    return message.get("type") if isinstance(message, dict) else None
