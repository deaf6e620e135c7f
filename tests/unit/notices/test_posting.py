"""notices/posting.py: to a real server, with what a token or a URL in a file is for, and no word of either."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from runnerd.core.notices import Notice
from runnerd.files.bounded_calls import BoundedCalls
from runnerd.notices.posting import Poster
from runnerd.prefect_api.connections import open_client
from tests.kits.notices import DOCUMENT, Receiver, a_notice, a_target

pytestmark = pytest.mark.real_io


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver().serving() as receiver:
        yield receiver


def make(url: httpx.URL, timeout_s: float) -> httpx.AsyncClient:
    return open_client(url, timeout_s=timeout_s)


async def send(**target: object) -> str | None:
    notice: Notice = a_notice(target=a_target(**target))
    return await Poster(calls=BoundedCalls(), open_client=make).send(notice)


async def test_the_run_arrives(receiver: Receiver) -> None:
    assert await send(post=f"{receiver.url}/hook?key=1") is None
    (received,) = receiver.received
    assert (received.path, received.json) == ("/hook?key=1", DOCUMENT)
    assert received.headers["content-type"] == "application/json"
    assert "authorization" not in received.headers


async def test_url_and_token_of_files(receiver: Receiver, tmp_path: Path) -> None:
    url, token = tmp_path / "url", tmp_path / "token"
    url.write_text(f"{receiver.url}/secret\n")
    token.write_text("hush\n")
    assert await send(post=None, post_file=str(url), token_file=str(token)) is None
    (received,) = receiver.received
    assert (received.path, received.headers["authorization"]) == ("/secret", "Bearer hush")


@pytest.mark.parametrize(("content", "why"), [
    (None, "cannot read {path}: No such file or directory"),
    ("ftp://hush/", "{path} holds no http or https URL"),
    ("http://a/\nhush", "cannot use {path}: it must hold one line of printable ASCII text"),
    ("", "cannot use {path}: it must hold one line of printable ASCII text"),
])  # fmt: skip
async def test_a_file_that_is_no_use(tmp_path: Path, content: str | None, why: str) -> None:
    path = tmp_path / "url"
    if content is not None:
        path.write_text(content)
    assert await send(post=None, post_file=str(path)) == why.format(path=path)


async def test_a_redirect_is_not_followed(receiver: Receiver) -> None:
    receiver.statuses, receiver.location = [307, 302], f"{receiver.url}/elsewhere"
    for status in (307, 302):
        why = f"HTTP {status}: it redirects, which is not followed; write the URL to which it leads"
        assert await send(post=f"{receiver.url}/hook") == why
    assert [one.path for one in receiver.received] == ["/hook"] * 2


async def test_an_odd_location_is_one_more_failure(receiver: Receiver) -> None:
    receiver.statuses, receiver.location = [301], "http://[::x/"
    why = await send(post=f"{receiver.url}/hook")
    assert why is not None and why.startswith("HTTP 301")


@pytest.mark.parametrize("status", [400, 404, 500, 503])
async def test_what_is_no_success_says_its_status(receiver: Receiver, status: int) -> None:
    receiver.statuses = [status]
    assert await send(post=f"{receiver.url}/hook") == f"HTTP {status}"


async def test_nobody_there() -> None:
    assert await send(post="http://127.0.0.1:9/hush") == "connection refused"


async def test_a_server_that_never_answers() -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert await send(post=f"http://127.0.0.1:{port}/", timeout_s=0.2) == "no answer in time"


async def test_a_certificate_is_checked() -> None:
    """A server that speaks no TLS at all is refused as well."""
    with Receiver().serving() as receiver:
        why = await send(post=receiver.url.replace("http:", "https:") + "/hush")
    assert why is not None and "TLS failed" in why
    assert receiver.received == []
