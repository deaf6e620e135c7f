"""One HTTP/1.1 request and its answer on one connection, over h11.

Invariants: one request a connection (`Connection: close`), so nothing of one can leak into the next; a head is at most
HEAD_MAX and a body BODY_MAX bytes; a request is whole within REQUEST_S; an answer that is not taken within ANSWER_S is
dropped, but a stream may stall for as long as its reader likes (a pager), at the price of one connection.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

import h11

from runnerd.control.contract import Peer
from runnerd.control.http.problem import CONTENT_TYPE, Problem
from runnerd.core.place import Json

HEAD_MAX = 16 * 2**10
BODY_MAX = 2**20
REQUEST_S = 30.0
ANSWER_S = 30.0
LINGER_S = 2.0
_BLOCK = 64 * 2**10


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """`path` is split at its slashes and then unquoted, so that a segment may hold a slash. No `peer` over TCP."""

    method: str
    path: tuple[str, ...]
    query: Mapping[str, str]
    body: bytes
    peer: Peer | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    body: bytes
    content_type: str
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamReply:
    """An answer in chunks. `live`: it may be silent for long, so somebody has to notice when the reader leaves."""

    blocks: AsyncGenerator[bytes, None]
    content_type: str
    live: bool


def json_reply(document: Json, *, status: int = 200) -> Reply:
    body = json.dumps(document, allow_nan=False).encode() + b"\n"
    return Reply(body=body, content_type="application/json", status=status)


def problem_reply(problem: Problem) -> Reply:
    return Reply(body=problem.body(), content_type=CONTENT_TYPE, status=problem.status, headers=problem.headers)


class Exchange:
    """`receive`, then either `send` or `stream`, then `finish`."""

    def __init__(self, *, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: Peer | None) -> None:
        self._reader = reader
        self._writer = writer
        self._peer = peer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_MAX)
        self._received = False
        self._wants_body = True
        # Nothing waits in our memory: once drained, an answer is in the kernel and closing cannot hang or cut it.
        writer.transport.set_write_buffer_limits(high=0)

    async def receive(self) -> Request | None:
        """The request; None when the peer left without one. Raises Problem when it is not one we read."""
        try:
            async with asyncio.timeout(REQUEST_S):
                head = await self._next_event()
                if not isinstance(head, h11.Request):
                    return None
                self._wants_body = head.method != b"HEAD"
                return _request(head, await self._body(head), self._peer)
        except TimeoutError:
            if not self._received:
                return None
            raise Problem(408, f"the request was not complete within {REQUEST_S:.0f} s") from None
        except h11.RemoteProtocolError as error:
            raise Problem(error.error_status_hint or 400, f"cannot read the request: {error}") from None

    async def send(self, reply: Reply) -> None:
        """Answer. Raises ConnectionError when the peer is gone, TimeoutError when it does not read."""
        length = {"Content-Length": str(len(reply.body))}
        async with asyncio.timeout(ANSWER_S):
            await self._write(self._head(reply.status, reply.content_type, {**reply.headers, **length}))
            if self._wants_body:
                await self._write(h11.Data(data=reply.body))
            await self._write(h11.EndOfMessage())

    async def stream(self, reply: StreamReply) -> None:
        """Answer block by block; returns when the blocks end or the peer of a live stream left."""
        async with aclosing(reply.blocks):
            await self._write(self._head(200, reply.content_type, {}))
            if not reply.live:
                await self._pump(reply.blocks)
                return
            pump = asyncio.create_task(self._pump(reply.blocks), name="control stream")
            left = asyncio.create_task(self._until_peer_leaves(), name="control stream's reader")
            try:
                await asyncio.wait({pump, left}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                left.cancel()
                pump.cancel()
                await asyncio.gather(left, pump, return_exceptions=True)
            if not pump.cancelled():
                pump.result()

    async def finish(self) -> None:
        """Let the peer read the answer to what it has not finished sending, then close.

        Closing with unread input resets the connection, and the reset may overtake the answer.
        """
        if self._http.their_state is not h11.DONE:
            with suppress(OSError, TimeoutError):
                self._writer.write_eof()
                async with asyncio.timeout(LINGER_S):
                    await self._until_peer_leaves()
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()

    # --- inside ---

    async def _next_event(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if self._http.they_are_waiting_for_100_continue:
                await self._write(h11.InformationalResponse(status_code=100, headers=[]))
            data = await self._reader.read(_BLOCK)
            self._received = self._received or bool(data)
            self._http.receive_data(data)
        return event

    async def _body(self, head: h11.Request) -> bytes:
        announced = next((int(value) for name, value in head.headers if name == b"content-length"), 0)
        body = bytearray()
        while announced <= BODY_MAX and len(body) <= BODY_MAX:
            event = await self._next_event()
            if not isinstance(event, h11.Data):
                return bytes(body)
            body += event.data
        raise Problem(413, f"the body is larger than {BODY_MAX} bytes")

    def _head(self, status: int, content_type: str, headers: Mapping[str, str]) -> h11.Response:
        fields = {"Content-Type": content_type, "Connection": "close", **headers}
        return h11.Response(status_code=status, headers=list(fields.items()))

    async def _write(self, event: h11.Event) -> None:
        if data := self._http.send(event):
            self._writer.write(data)
        await self._writer.drain()

    async def _pump(self, blocks: AsyncGenerator[bytes, None]) -> None:
        async for block in blocks:
            await self._write(h11.Data(data=block))
        await self._write(h11.EndOfMessage())

    async def _until_peer_leaves(self) -> None:
        while await self._reader.read(_BLOCK):
            pass


def _request(head: h11.Request, body: bytes, peer: Peer | None) -> Request:
    try:
        target = urlsplit(head.target.decode("ascii"))
        path = tuple(unquote(part, errors="strict") for part in target.path.strip("/").split("/"))
        query = dict(parse_qsl(target.query, keep_blank_values=True, errors="strict"))
    except ValueError:
        raise Problem(400, "the request's path or query is not UTF-8 in percent encoding") from None
    return Request(method=head.method.decode("ascii"), path=path, query=query, body=body, peer=peer)
