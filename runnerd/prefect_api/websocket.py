"""Keeps one WebSocket connection as a client: the handshake, text messages both ways, and whether the peer still lives.

Invariants: nothing waits without a limit; what a peer sends is bounded in length and in pace, because it may be a
proxy or an attacker; no extension is negotiated, so that no compressed message can grow (ADR 31).
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import httpx
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    Request,
    TextMessage,
)
from wsproto.utilities import ProtocolError

from runnerd.prefect_api.failure_words import broken_words

MESSAGE_MAX = 1024 * 1024  # characters of one message
OPEN_S = 20.0  # until the connection is open
QUIET_S = 20.0  # without a byte until the peer is asked whether it is there, and again until it counts as gone
# More than that within that time is no stream of events. Frames count too: 100,000 of two bytes keep a processor busy.
FLOOD_BYTES, FLOOD_FRAMES, FLOOD_S = 32 * 1024 * 1024, 20_000, 10.0
_READ_BYTES = 16 * 1024  # what is read at once is parsed at once, while other loops wait
_SEND_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Holds why no connection was opened: the HTTP status of the answer, or None where there was no answer."""

    status: int | None = None
    why: str

    @property
    def lasts(self) -> bool:
        """Whether it does not end within minutes: there is no such WebSocket, or none for this client."""
        status = self.status or 0
        return (300 <= status < 500 and status not in (408, 425)) or status in (501, 505)


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """Holds why a connection is over: the close code that the peer sent, None where it sent none."""

    code: int | None = None
    why: str


class WebSocket:
    """Sends and receives the text messages of one open connection. `clock` is monotonic, in seconds."""

    def __init__(
        self,
        *,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        clock: Callable[[], float],
    ) -> None:
        self._reader, self._writer, self._clock = reader, writer, clock
        self._protocol = WSConnection(ConnectionType.CLIENT)
        self._events: deque[Event] = deque()
        self._parts: list[str] = []  # of the message under way
        self._length = 0  # of these parts
        self._asked_at: float | None = None  # when the peer was asked whether it is there
        self._window_at, self._window_bytes, self._window_frames = clock(), 0, 0

    async def shake_hands(self, url: httpx.URL, *, subprotocol: str, headers: Mapping[str, str]) -> Refusal | None:
        """Open the connection over the streams; None when it is open."""
        request = Request(
            host=url.netloc.decode("ascii"),
            target=url.raw_path.decode("ascii"),
            subprotocols=[subprotocol],
            extra_headers=[(name.encode(), value.encode()) for name, value in headers.items()],
        )
        await self._send(request)
        while True:
            if (over := await self._fill()) is not None:
                return Refusal(why=over.why)
            event = self._events.popleft()
            if isinstance(event, AcceptConnection):
                return None
            status = event.status_code if isinstance(event, RejectConnection) else None
            return Refusal(status=status, why=f"HTTP {status}" if status else "the answer is not that of a WebSocket")

    async def send(self, text: str) -> None:
        """Send one message. Raises OSError (TimeoutError too) when the peer does not take it."""
        await self._send(TextMessage(data=text))

    async def receive(self) -> str | Closed:
        """Return the next message, or why there is none any more. It takes as long as the peer is there and silent."""
        while True:
            if not self._events and (over := await self._fill()) is not None:
                return over
            found = await self._take(self._events.popleft())
            if found is not None:
                return found

    async def close(self) -> None:
        """Close the connection, without waiting for the peer."""
        with suppress(OSError, ProtocolError):
            self._writer.write(self._protocol.send(CloseConnection(code=1000)))
        self._writer.close()
        if self._writer.transport.get_write_buffer_size():  # the peer reads nothing, and may never do so again
            self._writer.transport.abort()

    async def _take(self, event: Event) -> str | Closed | None:
        """Act on one event; None where the message is not whole yet."""
        if isinstance(event, Ping):
            with suppress(OSError):  # a peer that is gone shows at the next read
                await self._send(event.response())
        elif isinstance(event, CloseConnection):
            return Closed(
                code=int(event.code), why=f"closed by the server ({int(event.code)}) {event.reason or ''}".strip()
            )
        elif isinstance(event, BytesMessage):
            return Closed(why="it sends binary messages")
        elif isinstance(event, TextMessage):
            return self._append(event)
        return None

    def _append(self, event: TextMessage) -> str | Closed | None:
        self._parts.append(event.data)
        self._length += len(event.data)
        if self._length > MESSAGE_MAX:
            return Closed(why=f"it sends a message of more than {MESSAGE_MAX // 1024} KiB")
        if not event.message_finished:
            return None
        text = "".join(self._parts)
        self._parts, self._length = [], 0
        return text

    async def _fill(self) -> Closed | None:
        """Read until there is an event; why there is none any more otherwise."""
        while not self._events:
            data = await self._read()
            if isinstance(data, Closed):
                return data
            try:
                self._protocol.receive_data(data)
                self._events.extend(self._protocol.events())
            except ProtocolError as error:
                return Closed(why=f"it sends what is no WebSocket: {error}")
            self._window_frames += len(self._events)
            if self._window_frames > FLOOD_FRAMES:
                return Closed(why=f"it sends more than {FLOOD_FRAMES} messages within {FLOOD_S:g} s")
            await asyncio.sleep(0)  # what is buffered is read without a pause: other loops get their turn
            if data is None:  # the end of the stream, and no event came of it
                return None if self._events else Closed(why="the connection was closed")
        return None

    async def _read(self) -> bytes | Closed | None:
        """Read what there is, None at the end of the stream; ask a silent peer whether it is there."""
        while True:
            try:
                async with asyncio.timeout(QUIET_S):
                    data = await self._reader.read(_READ_BYTES)
            except TimeoutError:
                if self._asked_at is not None:
                    return Closed(why=f"no answer within {QUIET_S:g} s")
                self._asked_at = self._clock()
                with suppress(OSError, ProtocolError):
                    await self._send(Ping())
                continue
            except OSError as error:
                return Closed(why=broken_words(error))
            self._asked_at = None
            return self._bounded(data)

    def _bounded(self, data: bytes) -> bytes | Closed | None:
        now = self._clock()
        if now - self._window_at > FLOOD_S:
            self._window_at, self._window_bytes, self._window_frames = now, 0, 0
        self._window_bytes += len(data)
        if self._window_bytes > FLOOD_BYTES:
            return Closed(why=f"it sends more than {FLOOD_BYTES // 1024**2} MiB within {FLOOD_S:g} s")
        return data or None

    async def _send(self, event: Event) -> None:
        try:
            self._writer.write(self._protocol.send(event))
        except ProtocolError as error:
            raise OSError(f"cannot send: {error}") from None
        async with asyncio.timeout(_SEND_S):
            await self._writer.drain()


async def open_websocket(
    url: httpx.URL, *, subprotocol: str, headers: Mapping[str, str], clock: Callable[[], float]
) -> WebSocket | Refusal:
    """Open a connection to a ws or wss URL, within OPEN_S. Redirects are not followed: credentials go to no other."""
    secure = url.scheme == "wss"
    port = url.port or (443 if secure else 80)
    context = ssl.create_default_context() if secure else None
    writer = None
    try:
        async with asyncio.timeout(OPEN_S):
            reader, writer = await asyncio.open_connection(url.host, port, ssl=context)
            made = WebSocket(reader=reader, writer=writer, clock=clock)
            refusal = await made.shake_hands(url, subprotocol=subprotocol, headers=headers)
            if refusal is None:
                writer = None
                return made
    except (OSError, ValueError) as error:  # TimeoutError and TLS errors too
        refusal = Refusal(why=broken_words(error))
    finally:
        if writer is not None:
            writer.close()
    return refusal
