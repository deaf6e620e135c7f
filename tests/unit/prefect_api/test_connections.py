"""connections.py: a server that gives half an answer, none, or one too late, and clients that are replaced."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from runnerd.core.errors import ApiAway
from runnerd.core.prefect import ApiCondition, ApiHealth
from runnerd.prefect_api.connections import open_client
from runnerd.prefect_api.credentials import Credentials
from runnerd.prefect_api.failure_words import broken_words
from runnerd.prefect_api.transport import RENEW_AFTER_FAILURES, Transport
from tests.kits.transport import NOW, SECRET, URL, Rig

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(serve: Serve) -> AsyncIterator[str]:
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await reader.readuntil(b"\r\n\r\n")
            await serve(reader, writer)
        except (asyncio.CancelledError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/api"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def real_transport(
    url: str,
    *,
    timeout_s: float = 30,
    client_timeout: httpx.Timeout | None = None,
    headers: dict[str, str] | None = None,
) -> Transport:
    def open_one(at: httpx.URL) -> httpx.AsyncClient:
        client = open_client(at, timeout_s=timeout_s)
        client.timeout = client_timeout or client.timeout
        return client

    return Transport(
        url=url,
        credentials=lambda: Credentials(key=SECRET),
        headers=headers or {},
        timeout_s=timeout_s,
        now=lambda: NOW,
        open_client=open_one,
    )


async def broken(url: str, **more: Any) -> tuple[ApiAway, ApiHealth]:
    """Ask a real server over a real socket, and fail."""
    transport = real_transport(url, **more)
    try:
        with pytest.raises(ApiAway) as caught:
            await transport.request("GET", "/x")
    finally:
        await transport.close()
    assert not caught.value.answered and SECRET not in str(caught.value)
    assert transport.health.condition is ApiCondition.UNREACHABLE
    return caught.value, transport.health


@pytest.mark.real_io
@pytest.mark.parametrize(
    "bytes_sent",
    [
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[1, 2",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n[1, 2",
        b"this is not HTTP at all\r\n\r\n",
    ],
    ids=["hangs up", "half a head", "half a body", "half a chunk", "no HTTP"],
)
async def test_half_an_answer_is_none(bytes_sent: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes_sent)
        await writer.drain()

    async with listening(serve) as url:
        _, health = await broken(url)
        assert health.detail == "the connection broke in the middle of an answer"


def test_the_words_for_a_request_that_the_server_did_not_read() -> None:
    error = httpx.WriteError("")
    error.__cause__ = BrokenPipeError(errno.EPIPE, "Broken pipe")
    assert broken_words(error) == "the server closed the connection before it had read the request"


@pytest.mark.real_io
async def test_a_server_that_never_answers_is_given_up() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with listening(serve) as url:
        _, health = await broken(url, client_timeout=httpx.Timeout(60, read=0.05))
        assert health.detail == "no answer in time"


@pytest.mark.real_io
async def test_a_server_that_trickles_for_ever_is_given_up() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with listening(serve) as url:
        _, health = await broken(url, timeout_s=0.15, client_timeout=httpx.Timeout(60))
        assert health.detail == "no answer in time"


@pytest.mark.real_io
async def test_nobody_listens() -> None:
    async with listening(lambda reader, writer: asyncio.sleep(0)) as url:
        pass
    error, health = await broken(url)
    assert health.detail == "connection refused"
    assert str(error) == f"cannot reach Prefect at {url}: connection refused"


async def test_a_name_that_does_not_resolve() -> None:
    _, health = await broken("http://no-such-host.invalid/api")
    assert health.detail == "the host name does not resolve"


@pytest.mark.real_io
async def test_http_spoken_to_as_https() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """`listening` waits for the end of a head that never comes."""

    server = await asyncio.start_server(lambda r, w: (w.write(b"HTTP/1.1 400 Bad\r\n\r\n"), w.close()), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        _, health = await broken(f"https://127.0.0.1:{port}/api")
        assert health.detail == "TLS failed; is it an https server?"


async def test_a_password_in_the_url_is_not_shown() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError(f"{request.url}", request=request)

    rig = Rig(refuse, url=f"http://user:{SECRET}@prefect.test/api")
    assert "http://prefect.test/api: no connection" in str(await rig.fail(ApiAway))


@pytest.mark.real_io
@pytest.mark.parametrize("value", [f"{SECRET}\r\nX: y", f"{SECRET}ü"], ids=["line break", "not ASCII"])
async def test_a_malformed_header_is_not_quoted(value: str) -> None:
    async with listening(lambda reader, writer: asyncio.sleep(0)) as url:
        transport = real_transport(url, headers={"X-Pass": value})
        with pytest.raises(ApiAway, match="malformed") as caught:
            await transport.request("GET", "/x")
        assert SECRET not in str(caught.value) and caught.value.__suppress_context__
        await transport.close()


@pytest.mark.real_io
@pytest.mark.parametrize("bytes_sent", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[1"], ids=["head", "body"])
async def test_a_request_that_is_cancelled_is_cancelled(bytes_sent: bytes) -> None:
    asked, hung_up = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes_sent)
        await writer.drain()
        asked.set()
        assert await reader.read() == b""
        hung_up.set()

    async with listening(serve) as url:
        transport = real_transport(url)
        task = asyncio.create_task(transport.request("GET", "/x"))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await hung_up.wait()
        assert transport.health.detail == "no answer yet"
        await transport.close()


@pytest.mark.real_io
async def test_a_request_leaves_no_cancellation_behind_in_the_task_that_asks() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n7")
        await writer.drain()

    async with listening(serve) as url:
        transport = real_transport(url)
        assert (await transport.request("GET", "/x")).data == 7
        task = asyncio.current_task()
        assert task is not None and task.cancelling() == 0
        await transport.close()


async def test_after_several_failures_in_a_row_the_connections_are_made_anew() -> None:
    fail = True

    def answer(request: httpx.Request) -> httpx.Response:
        if fail:
            raise httpx.ReadError("", request=request)
        return httpx.Response(200, json=1)

    rig = Rig(answer)
    for count in range(2 * RENEW_AFTER_FAILURES):
        assert len(rig.opened) == (count - 1) // RENEW_AFTER_FAILURES + 1 if count else True
        with pytest.raises(ApiAway):
            await rig.ask()
    assert len(rig.opened) == 2 and all(client.is_closed for client in rig.opened)
    fail = False
    await rig.ask()
    assert len(rig.opened) == 3 and not rig.opened[-1].is_closed
    fail = True
    for _ in range(RENEW_AFTER_FAILURES - 1):  # an answer in between starts the count anew
        with pytest.raises(ApiAway):
            await rig.ask()
    fail = False
    await rig.ask()
    assert len(rig.opened) == 3


async def test_making_connections_anew_does_not_cut_off_an_answer_that_is_coming() -> None:
    release, waiting = asyncio.Event(), asyncio.Event()

    async def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/slow"):
            waiting.set()
            await release.wait()
            return httpx.Response(200, json="in peace")
        raise httpx.ReadError("", request=request)

    opened: list[httpx.AsyncClient] = []

    def open_one(_url: httpx.URL) -> httpx.AsyncClient:
        opened.append(httpx.AsyncClient(transport=httpx.MockTransport(answer)))
        return opened[-1]

    transport = Transport(
        url=URL, credentials=Credentials, headers={}, timeout_s=30, now=lambda: NOW, open_client=open_one
    )
    slow = asyncio.create_task(transport.request("GET", "/slow"))
    await waiting.wait()
    for _ in range(RENEW_AFTER_FAILURES):
        with pytest.raises(ApiAway):
            await transport.request("GET", "/x")
    assert not opened[0].is_closed
    release.set()
    assert (await slow).data == "in peace"
    assert opened[0].is_closed
