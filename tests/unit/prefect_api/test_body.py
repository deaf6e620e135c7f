"""body.py: however much is sent, and however it is packed, a bounded part of it is read, and it becomes plain JSON."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from runnerd.core.errors import ApiAway
from runnerd.prefect_api.body import DEPTH_MAX, MAX_ANSWER_BYTES, Body, TooDeep, parse_body, read_body
from tests.kits.nouns import an_id
from tests.kits.transport import Rig

MIB = 2**20


class Blocks(httpx.AsyncByteStream):
    """A body of these blocks over and over; `sent`: how many bytes of it were asked for."""

    def __init__(self, block: bytes, times: int) -> None:
        self.block, self.times, self.sent = block, times, 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(self.times):
            self.sent += len(self.block)
            yield self.block


async def read(content: bytes, **headers: str) -> Body:
    return await read_body(httpx.Response(200, stream=Blocks(content, 1), headers=headers))


# --- size ---------------------------------------------------------------------------------------------------------


async def test_an_endless_answer_is_cut_off_and_the_words_name_the_request_and_the_bound() -> None:
    endless = Blocks(b" " * MIB, 10**9)
    error = await Rig(lambda request: httpx.Response(200, stream=endless)).fail(ApiAway)
    assert "HTTP 200 from GET /x is longer than 8 MiB, the most that runnerd reads" in str(error)
    assert error.answered and error.too_long
    assert endless.sent <= MAX_ANSWER_BYTES + MIB


async def test_the_bound_is_of_what_it_unpacks_to() -> None:
    bomb = gzip.compress(b" " * 500 * MIB, compresslevel=9)
    assert len(bomb) < MIB
    tracemalloc.start()
    try:
        body = await read(bomb, **{"Content-Encoding": "gzip"})
        assert tracemalloc.get_traced_memory()[1] < 4 * MAX_ANSWER_BYTES
    finally:
        tracemalloc.stop()
    assert body.too_long and body.why == "is longer than 8 MiB, the most that runnerd reads"


async def test_the_longest_answer_is_read_and_parsed_outside_of_the_loop() -> None:
    threads = CountingThreads()
    asyncio.get_running_loop().set_default_executor(threads)
    text = json.dumps("x" * (MAX_ANSWER_BYTES - 2)).encode()
    for packed, headers in ((text, {}), (gzip.compress(text), {"Content-Encoding": "gzip"})):
        assert (await read(packed, **headers)).data == "x" * (MAX_ANSWER_BYTES - 2)
    assert threads.jobs == 2
    assert (await read(b"[1]")).data == [1]
    assert threads.jobs == 2


class CountingThreads(ThreadPoolExecutor):
    """Counts what it is given to do."""

    jobs = 0

    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:  # type: ignore[override]
        self.jobs += 1
        return super().submit(*args, **kwargs)


async def test_millions_of_values_are_not_made() -> None:
    body = await read(b"[" + b"{}," * 2_700_000 + b"{}]")
    assert body.too_long and body.why == "has more than 500000 values, the most that runnerd reads"


@pytest.mark.parametrize(
    ("content", "encoding", "why"),
    [
        (gzip.compress(b"[1]")[:-4], "gzip", "has a broken compression"),
        (b"[1]", "gzip", "has a broken compression"),
        (zlib.compress(b"[1]"), "deflate", "has a Content-Encoding that was not asked for"),
        (b"\x1b\x05", "br", "has a Content-Encoding that was not asked for"),
        (gzip.compress(gzip.compress(b"[1]")), "gzip, gzip", "has a Content-Encoding that was not asked for"),
    ],
    ids=["cut off", "not packed", "deflate", "br", "twice"],
)
async def test_packed_otherwise_than_asked_for(content: bytes, encoding: str, why: str) -> None:
    assert await read(content, **{"Content-Encoding": encoding}) == Body(why=why)


async def test_packed_as_asked_for() -> None:
    assert (await read(gzip.compress(b'{"a": 1}'), **{"Content-Encoding": "GZIP"})).data == {"a": 1}
    assert (await read(b"[]", **{"Content-Encoding": "identity"})).data == []
    assert await read(b"", **{"Content-Encoding": "gzip"}) == Body()


# --- JSON ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "data"),
    [
        (b"", None),
        (b" \n", None),
        (b"\xef\xbb\xbf[1]", [1]),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b'["\\ud800", "a\\udfffb", {"\\udc00": "\\ud83d\\ude00"}]', ["\ufffd", "a\ufffdb", {"\ufffd": "\U0001f600"}]),
        (b'"\xed\xa0\x80"', "\ufffd" * 3),
        (b'"caf\xe9"', "caf\ufffd"),
        (b"[NaN, Infinity, -Infinity, 1e999, 1e308]", [None, None, None, None, 1e308]),
        (b"[" + b"9" * 400 + b".5, 7]", [None, 7]),
        (b"[" + b"9" * 5000 + b", 100000000000000000000]", [None, 10**20]),
    ],
)
def test_what_is_odd_is_made_harmless(content: bytes, data: Any) -> None:
    assert parse_body(content) == Body(data=data)
    json.dumps(data, ensure_ascii=False).encode()


@pytest.mark.parametrize("content", [b"<html>", b"{", b"[1", b"\xff\xfe", "[1]".encode("utf-16"), b"[" * 100_000])
def test_what_is_no_json(content: bytes) -> None:
    assert parse_body(content) == Body(why="is not JSON")


def nested(levels: int) -> bytes:
    return b'{"a": [' * (levels // 2) + b"]}" * (levels // 2)


def test_only_the_item_that_is_too_deep_is_left_out() -> None:
    wanted = an_id("r").encode()
    deep = b'{"id": "' + wanted + b'", "parameters": ' + nested(DEPTH_MAX + 2) + b"}"
    offered = b'{"flow_run": ' + deep + b"}"
    data = parse_body(b"[1, " + deep + b", " + offered + b", {}, " + nested(DEPTH_MAX) + b"]").data
    assert data[:4] == [1, TooDeep(an_id("r")), TooDeep(an_id("r")), {}]
    assert isinstance(data[4], dict)
    assert parse_body(deep) == Body(why="is more than 200 levels deep")


@pytest.mark.parametrize("walk", [json.dumps, repr])
def test_what_is_read_can_be_walked_through(walk: Callable[[Any], str]) -> None:
    assert walk(parse_body(nested(DEPTH_MAX)).data)
