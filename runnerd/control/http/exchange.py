"""Receives one HTTP/1.1 request on one connection and sends its answer, with h11.

Invariants: one request per connection (`Connection: close`), so no state is left for a next request. A head has at most
HEAD_MAX bytes, a body BODY_MAX; a segment of the path and each part of the query is a name (core/names.py), and no key
of the query is repeated. A request must be complete within REQUEST_S. A connection whose client does not read
its answer within ANSWER_S is closed; a stream has no such limit, because its reader may be a pager, and occupies one
connection meanwhile.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote, urlsplit

import h11

from runnerd.control.contract import Peer
from runnerd.control.http.problem import CONTENT_TYPE, HttpProblem
from runnerd.core.names import describe_unfit_name
from runnerd.core.place import Json
from runnerd.core.units import format_duration

HEAD_MAX = 16 * 2**10
BODY_MAX = 2**20
REQUEST_S = 30.0
ANSWER_S = 30.0
LINGER_S = 2.0
HEADERS = ("host", "origin", "authorization")
_BLOCK = 64 * 2**10


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One HTTP request.

    `path` is split at its slashes first and unquoted then, so a segment may contain a slash. `peer` is None over TCP.
    `headers` has those of HEADERS that the request has, by their names in small letters.
    """

    method: str
    path: tuple[str, ...]
    query: Mapping[str, str]
    body: bytes
    peer: Peer | None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One HTTP answer with its whole body; `then` is called once it was sent, or its client has gone."""

    body: bytes
    content_type: str
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    then: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamReply:
    """An HTTP answer in chunks.

    `live`: no chunk may come for a long time, so the connection must be watched for the client's disconnection.
    """

    blocks: AsyncGenerator[bytes, None]
    content_type: str
    live: bool


def json_reply(document: Json, *, status: int = 200) -> Reply:
    """Return the reply that holds `document` as JSON."""
    body = json.dumps(document, allow_nan=False).encode() + b"\n"
    return Reply(body=body, content_type="application/json", status=status)


def problem_reply(problem: HttpProblem) -> Reply:
    """Return the reply that holds `problem` as an RFC 9457 document."""
    return Reply(body=problem.body(), content_type=CONTENT_TYPE, status=problem.status, headers=problem.headers)


class Exchange:
    """One request and its answer: call `receive`, then `send` or `stream`, then `finish`."""

    def __init__(self, *, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: Peer | None) -> None:
        self._reader = reader
        self._writer = writer
        self._peer = peer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_MAX)
        self._received = False
        self._wants_body = True
        # No buffer in this process: after drain() the answer is in the kernel, so close() neither blocks nor truncates.
        # Not 0 for TLS: asyncio's then says "full" for an empty buffer, and says "empty" only after the next write.
        tls = writer.get_extra_info("sslcontext") is not None
        writer.transport.set_write_buffer_limits(high=1 if tls else 0)

    async def receive(self) -> Request | None:
        """Read the request; None when the client closed without one. Raises HttpProblem for an unreadable request."""
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
            raise HttpProblem(408, f"the request was not complete within {format_duration(REQUEST_S)}") from None
        except h11.RemoteProtocolError as error:
            if error.error_status_hint == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
                raise HttpProblem(431, f"the head of the request is larger than {HEAD_MAX} bytes") from None
            raise HttpProblem(error.error_status_hint or 400, f"cannot read the request: {error}") from None
        except ValueError as error:  # from h11: a Content-Length of thousands of digits
            raise HttpProblem(400, f"cannot read the request: {error}") from None

    async def send(self, reply: Reply) -> None:
        """Send `reply`. Raises ConnectionError when the client has closed, TimeoutError when it does not read."""
        length = {"Content-Length": str(len(reply.body))}
        async with asyncio.timeout(ANSWER_S):
            await self._write(self._head(reply.status, reply.content_type, {**reply.headers, **length}))
            if self._wants_body:
                await self._write(h11.Data(data=reply.body))
            await self._write(h11.EndOfMessage())

    async def stream(self, reply: StreamReply) -> None:
        """Send `reply` chunk by chunk, until its blocks end or the client of a live stream disconnects."""
        async with aclosing(reply.blocks):
            await self._write(self._head(200, reply.content_type, {}))
            if not reply.live:
                await self._pump(reply.blocks)
                return
            pump = asyncio.create_task(self._pump(reply.blocks), name="control stream")
            eof = asyncio.create_task(self._read_to_eof(), name="control stream's reader")
            try:
                await asyncio.wait({pump, eof}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                eof.cancel()
                pump.cancel()
                await asyncio.gather(eof, pump, return_exceptions=True)
            if not pump.cancelled():
                pump.result()

    async def finish(self) -> None:
        """Close the connection; first read the rest of a request that was answered before it was complete.

        Closing a socket with unread input resets the connection, and the reset may discard the answer.
        """
        if self._http.their_state is not h11.DONE:
            with suppress(OSError, TimeoutError):
                if self._writer.can_write_eof():  # TLS cannot
                    self._writer.write_eof()
                async with asyncio.timeout(LINGER_S):
                    await self._read_to_eof()
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
        announced = next((int(value[:20]) for name, value in head.headers if name == b"content-length"), 0)
        body = bytearray()
        while announced <= BODY_MAX and len(body) <= BODY_MAX:
            event = await self._next_event()
            if not isinstance(event, h11.Data):
                return bytes(body)
            body += event.data
        raise HttpProblem(413, f"the body is larger than {BODY_MAX} bytes")

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

    async def _read_to_eof(self) -> None:
        while await self._reader.read(_BLOCK):
            pass


def _request(head: h11.Request, body: bytes, peer: Peer | None) -> Request:
    try:
        target = urlsplit(head.target.decode("ascii"))
        path = tuple(unquote(part, errors="strict") for part in target.path.strip("/").split("/"))
        pairs = parse_qsl(target.query, keep_blank_values=True, errors="strict")
    except ValueError:
        raise HttpProblem(400, "the request's path or query is not UTF-8 in percent encoding") from None
    for what, text in [*(("path", part) for part in path), *(("query", text) for pair in pairs for text in pair)]:
        if unfit := describe_unfit_name(text):
            raise HttpProblem(400, f"the request's {what} {unfit}")
    query = dict(pairs)
    if len(query) < len(pairs):
        raise HttpProblem(400, "the request's query has a key twice; remove one")
    return Request(
        method=head.method.decode("ascii"), path=path, query=query, body=body, peer=peer, headers=_headers(head)
    )


def _headers(head: h11.Request) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in head.headers:
        key = name.decode("ascii")
        if key in found:
            raise HttpProblem(400, f"the request has the header {key} twice; remove one")
        if key in HEADERS:
            found[key] = value.decode("latin-1")
    return found
