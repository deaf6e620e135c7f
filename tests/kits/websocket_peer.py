"""The server's end of a WebSocket in memory, so that tests of the client's end run under the clock that jumps."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Event, Ping, RejectConnection, Request, TextMessage

from runnerd.prefect_api.websocket import Refusal, WebSocket

URL = httpx.URL("ws://127.0.0.1:4200/api/events/out")


class Peer:
    """Collects what the client sends, and answers when a test says so, but pings at once.

    `clock`: that of the client's end; `mute`: answer no ping.
    """

    def __init__(self, *, clock: Callable[[], float], mute: bool = False) -> None:
        self.mute = mute
        self.protocol = WSConnection(ConnectionType.SERVER)
        self.reader = asyncio.StreamReader()
        self.received: list[Event] = []
        self.closed = False
        self.socket = WebSocket(reader=self.reader, writer=self, clock=clock)  # type: ignore[arg-type]

    # --- what the client's end uses of an asyncio.StreamWriter --------------------------------------------------

    def write(self, data: bytes) -> None:
        self.protocol.receive_data(data)
        for event in self.protocol.events():
            self.received.append(event)
            if isinstance(event, Ping) and not self.mute:
                self.send(event.response())

    async def drain(self) -> None:
        await asyncio.sleep(0)

    def close(self) -> None:
        self.closed = True

    @property
    def transport(self) -> Peer:
        return self

    def get_write_buffer_size(self) -> int:
        return 0

    # --- what tests say -----------------------------------------------------------------------------------------

    def send(self, event: Event) -> None:
        self.reader.feed_data(self.protocol.send(event))

    def say(self, *messages: object) -> None:
        for message in messages:
            self.send(TextMessage(data=message if isinstance(message, str) else json.dumps(message)))

    def texts(self) -> list[Any]:
        return [json.loads(one.data) for one in self.received if isinstance(one, TextMessage)]

    def pings(self) -> int:
        return sum(isinstance(one, Ping) for one in self.received)

    async def shake_hands(self, answer: Event | None = None, **headers: str) -> Refusal | None:
        """Have the client open the connection, and answer it."""
        opening = asyncio.ensure_future(self.socket.shake_hands(URL, subprotocol="prefect", headers=headers))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert isinstance(self.received[0], Request)
        self.send(answer or AcceptConnection(subprotocol="prefect"))
        return await opening


def end(code: int = 1000, reason: str = "") -> CloseConnection:
    return CloseConnection(code=code, reason=reason)


def refusal(status: int) -> RejectConnection:
    return RejectConnection(status_code=status)
