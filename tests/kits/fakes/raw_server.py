"""An HTTP server on loopback that answers with whatever bytes it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

Answer = Callable[[str, str, dict[str, str]], bytes]  # of method, path and headers


def http(
    status: int = 200, body: Any = None, headers: tuple[tuple[str, str], ...] = (), *, content: bytes | None = None
) -> bytes:
    """One answer on the wire; `content` in place of the JSON of `body`."""
    content = json.dumps(body).encode() if content is None else content
    fields = {"Content-Type": "application/json", "Content-Length": str(len(content))}
    given = {name.lower() for name, _ in headers}
    lines = [f"HTTP/1.1 {status} Odd"]
    lines += [f"{name}: {value}" for name, value in fields.items() if name.lower() not in given]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n" + content


@asynccontextmanager
async def raw_server(answer: Answer) -> AsyncIterator[str]:
    """Serve until the block is left; yields the API's URL. Each connection takes one request."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The client may hang up at any moment: at eight megabytes of a longer answer, for one.
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *fields = head.strip().split("\r\n")
            headers = {name.lower(): value for name, value in (field.split(": ", 1) for field in fields)}
            await reader.readexactly(int(headers.get("content-length", "0")))
            method, path, _ = first.split(" ", 2)
            writer.write(answer(method, path, headers))
            await writer.drain()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/api"
