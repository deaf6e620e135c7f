"""HTTP/1.1 as the fault-injecting proxy needs it: whole messages in, whole messages out."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

HTML = "text/html; charset=utf-8"
_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})
_BODILESS = (204, 304)


@dataclass(frozen=True)
class Head:
    """The first line of a request and its header fields, as they came."""

    method: str
    target: str
    fields: tuple[tuple[str, str], ...]

    def header(self, name: str) -> str:
        return next((value for key, value in self.fields if key.lower() == name), "")

    def raw(self, *, closing: bool, length: int = 0) -> bytes:
        """As bytes; `closing` says that the body is `length` long and that the connection ends with the answer."""
        fields = list(self.fields)
        if closing:
            fields = [(key, value) for key, value in fields if key.lower() not in _HOP]
            fields += [("Connection", "close"), ("Content-Length", str(length))]
        lines = [f"{self.method} {self.target} HTTP/1.1", *(f"{key}: {value}" for key, value in fields)]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def read_request(reader: asyncio.StreamReader) -> tuple[Head, bytes] | None:
    """The next request of a connection; None at its end."""
    try:
        block = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    first, fields = _parsed(block)
    method, target, _ = first.split(" ", 2)
    head = Head(method, target, fields)
    return head, await _body(reader, dict(_lowered(fields)), until_end=False)


async def read_response(reader: asyncio.StreamReader, *, no_body: bool) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of an answer; interim ones (1xx) are passed over."""
    while True:
        first, fields = _parsed(await reader.readuntil(b"\r\n\r\n"))
        status = int(first.split(" ")[1])
        if status >= 200:
            break
    bodiless = no_body or status in _BODILESS
    body = b"" if bodiless else await _body(reader, dict(_lowered(fields)), until_end=True)
    return status, {key: value for key, value in fields if key.lower() not in _HOP}, body


def frame(status: int, body: bytes, headers: Mapping[str, str], *, no_body: bool = False) -> bytes:
    """A whole answer."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "?"
    lines = [f"HTTP/1.1 {status} {phrase}", *(f"{key}: {value}" for key, value in headers.items())]
    if status not in _BODILESS and not no_body:
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until the end."""
    try:
        while block := await reader.read(65536):
            writer.write(block)
            await writer.drain()
    except OSError:
        return  # one side has gone, which ends the other


def _parsed(block: bytes) -> tuple[str, tuple[tuple[str, str], ...]]:
    first, *lines = block.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return first, tuple((key.strip(), value.strip()) for key, _, value in pairs)


def _lowered(fields: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
    return [(key.lower(), value) for key, value in fields]


async def _body(reader: asyncio.StreamReader, headers: Mapping[str, str], *, until_end: bool) -> bytes:
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return await _chunks(reader)
    if "content-length" in headers:
        return await reader.readexactly(int(headers["content-length"]))
    return await reader.read() if until_end else b""


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while True:
        size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
        if size == 0:
            break
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    while (await reader.readuntil(b"\r\n")) != b"\r\n":
        pass  # trailers say nothing we pass on
    return bytes(body)
