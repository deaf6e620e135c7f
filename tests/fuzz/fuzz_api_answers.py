"""Answers of the API, broken on purpose: every call of the real client over a server that answers with any bytes.

Whatever comes back, a call returns a value or raises one of our own errors, in words that name the request; it ends;
and what it returns can be logged, stored and calculated with. `FUZZ_SECONDS=600 .venv/bin/python -m pytest
tests/fuzz/fuzz_api_answers.py` tries other answers each time, for so long; without it a few hundred are tried.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

from runnerd.core.errors import ApiError
from runnerd.core.prefect import FlowRun, due
from runnerd.prefect_api.client import PrefectApi
from runnerd.prefect_api.credentials import Credentials
from tests.kits.api_calls import CALLS, NOW, Recorded, recorded
from tests.kits.fakes.raw_server import http, raw_server
from tests.kits.fuzzing import fuzz

Json = Any
Wire = Callable[[int, bytes], bytes]  # from a status and a body to what is sent
HANG_S = 120.0
EXAMPLES = 150

# --- odd JSON -----------------------------------------------------------------------------------------------------


def deep(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


# What json itself does not write is put in afterwards.
LATER = {
    f"@{name}@": wire
    for name, wire in {
        "five thousand digits": b"9" * 5000,
        "150 levels": deep(150),
        "250 levels": deep(250),
        "3000 levels": deep(3000),
        "maps": b'{"a":' * 300 + b"1" + b"}" * 300,
        "a float of digits": b"9" * 400 + b".0",
    }.items()
}

ODD_TIMES = st.sampled_from(
    [
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59.999999-14:00",
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
        "2026-11-22T12:00:00+23:59:59.999999",
        "10000-01-01T00:00:00Z",
        "2026-02-30T00:00:00Z",
        "soon",
    ]
)
ODD_NUMBERS = st.sampled_from([10**20, -(10**20), 10**400, 2**63, -1, 0, 1.5, 1e308, float("inf"), float("nan")])
ODD_TEXTS = st.sampled_from(
    ["", "\ud800", "a\udfffb", "\x00", "\x1b[31m\u202e", "\r\nX: 1", "/", "..", "é" * 2000, "x" * 100_000, "DREAMING"]
)
ODD_IDS = st.sampled_from(["00000000-0000-0000-0000-000000000000", "{6d1f3c0e-0d1b-4b41-9f3e-2b8a3f8e4c11}", "1", "me"])
ODD_SHAPES = st.sampled_from([None, True, [], {}, [None], [[]], {"\ud800": 1}, *LATER])
ODD = st.one_of(ODD_TIMES, ODD_NUMBERS, ODD_TEXTS, ODD_IDS, ODD_SHAPES, st.text(max_size=5), st.integers())
Path = tuple[Any, ...]


def paths(data: Json, above: Path = ()) -> Iterator[Path]:
    """Every place in the JSON, the whole of it first."""
    yield above
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for step, value in inner:
        yield from paths(value, (*above, step))


def changed(data: Json, path: Path, change: Callable[[Json], Json]) -> Json:
    """A copy with one place changed; ValueError from `change` takes the place out."""
    if not path:
        return change(data)
    copy = dict(data) if isinstance(data, dict) else list(data)
    try:
        copy[path[0]] = changed(copy[path[0]], path[1:], change)
    except LookupError:
        del copy[path[0]]
    return copy


@st.composite
def odd_json(draw: st.DrawFn, data: Json) -> Json:
    """Data with one to three places that are odd, missing or there too often."""
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(paths(data))))
        how = draw(st.sampled_from(["replace", "replace", "replace", "drop", "repeat"]))
        odd = draw(ODD)

        def change(value: Json, how: str = how, odd: Json = odd, whole: bool = not path) -> Json:
            if how == "repeat" and isinstance(value, list):
                return value * 300
            if how == "drop" and not whole:
                raise LookupError
            return odd

        data = changed(data, path, change)
    return data


def dumped(data: Json) -> bytes:
    text = json.dumps(data).encode()
    for name, wire in LATER.items():
        text = text.replace(f'"{name}"'.encode(), wire)
    return text


# --- odd bytes ----------------------------------------------------------------------------------------------------

STATUSES = [101, 199, 200, 201, 202, 204, 206, 301, 302, 304, 307, 308, 400, 401, 403, 404, 405, 408, 409, 418, 422]
STATUSES += [425, 429, 500, 502, 503, 599, 999]
ODD_HEADERS = {
    "Date": [
        "Sun, 22 Nov 99999 12:00:00 GMT",
        "Mon, 01 Jan 0001 00:00:00 +1400",
        "Sun, 22 Nov 2026 12:00:00 +9999999999",
    ],
    "Retry-After": ["1" + "0" * 20, "-1", "nan", "1e999", "9" * 5000, "Fri, 31 Dec 9999 23:59:59 -1400", "soon"],
    "Location": [
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:0/",
        "http://127.0.0.1:1/api/x",
        "http://user:word@127.0.0.1:1/",
        "http://[::1",
        "http://",
        "//",
        "ftp://prefect.test/",
        "javascript:alert(1)",
        "/api/x",
        "?",
        "http://\xff\xfe/",
        "http://xn--/",
        "http://127.0.0.1:1/" + "x" * 70_000,
    ],
    "Content-Type": ["text/html", "application/json; charset=utf-16", "application/json; charset=none", "/"],
    "Content-Encoding": ["gzip", "br", "identity", "deflate", "gzip, gzip", "\xff"],
    "Content-Length": ["0", "1", "10", "-1", "1" + "0" * 20, "x"],
    "Transfer-Encoding": ["chunked", "gzip"],
    "Set-Cookie": ["a=b; Max-Age=" + "9" * 30, "a=b; Expires=Fri, 31 Dec 99999 23:59:59 GMT", "\xff=\xfe"],
}
HEADER = st.sampled_from([(name, value) for name, values in ODD_HEADERS.items() for value in values])


def zipped(status: int, body: bytes) -> bytes:
    return http(status, content=gzip.compress(body), headers=(("Content-Encoding", "gzip"),))


def a_bomb(status: int, body: bytes) -> bytes:
    return http(status, content=_bomb(), headers=(("Content-Encoding", "gzip"),))


@cache
def _bomb() -> bytes:
    return gzip.compress(b"[" + b" " * 40 * 2**20 + b"]")


def cut(share: float) -> Wire:
    def wire(status: int, body: bytes) -> bytes:
        whole = http(status, content=body)
        return whole[: int(len(whole) * share)]

    return wire


WIRES = st.one_of(
    st.lists(HEADER, max_size=3).map(lambda more: lambda status, body: http(status, content=body, headers=tuple(more))),
    st.floats(0, 1).map(cut),
    st.sampled_from(
        [
            zipped,
            a_bomb,
            lambda status, body: http(status, content=body.decode("utf-8", "replace").encode("utf-16")),
            lambda status, body: http(status, content=body + b"\xff\xed\xa0\x80"),
            lambda status, body: http(status, content=b"<html>" * 1000),
            lambda status, body: http(status, content=b"[" * 100_000),
            lambda status, body: http(status, content=b"[" + b"{}," * 400_000 + b"{}]"),
            lambda status, body: b"\x00" * 100,
            lambda status, body: b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 30_000 + b"\r\n",
        ]
    ),
)

# --- one example --------------------------------------------------------------------------------------------------


@st.composite
def broken(draw: st.DrawFn) -> tuple[str, Recorded, int, bytes]:
    """A call, its valid answers, which of them is broken, and what is sent in its place."""
    name, major = draw(st.sampled_from(list(CALLS))), draw(st.sampled_from([2, 3]))
    record = known(name, major)
    index = draw(st.integers(0, len(record.answers) - 1))
    _asked, status, data = record.answers[index]
    if draw(st.booleans()):
        return name, record, index, http(status, content=dumped(draw(odd_json(data))))
    if draw(st.integers(0, 3)) == 0:
        data = draw(odd_json(data))
    status = draw(st.sampled_from([status, *STATUSES]))
    return name, record, index, draw(WIRES)(status, dumped(data))


known = cache(recorded)


def try_one(name: str, record: Recorded, index: int, wire: bytes) -> None:
    """Have the call answered so; AssertionError where it does not keep what the module says."""
    asked = 0

    def answer(_method: str, _path: str, _headers: dict[str, str]) -> bytes:
        nonlocal asked
        asked += 1
        if asked - 1 == index:
            return wire
        _asked, status, data = record.answers[min(asked, len(record.answers)) - 1]
        return http(status, data)

    async def use() -> None:
        async with raw_server(answer) as url:
            key = Credentials(key="pnu_s3cr3t")
            api = PrefectApi(url=url, credentials=lambda: key, headers={}, timeout_s=HANG_S, now=lambda: NOW)
            try:
                async with asyncio.timeout(HANG_S):
                    found = await record.call(api, record.names)
            except ApiError as error:
                _check_words(str(error))
            else:
                _check_value(found)
            finally:
                await api.close()
            _check_line(api.health.detail)

    try:
        asyncio.run(use())
    except Exception as error:
        raise AssertionError(f"{name} answered with {wire[:2000]!r}: {error!r}") from error


def _check_words(words: str) -> None:
    assert re.match(
        r"cannot (use Prefect at http://|reach Prefect at http://|read .+ as Prefect sent it: |[A-Z]+ /)", words
    )
    _check_line(words)


def _check_line(words: str) -> None:
    words.encode()
    assert words.isprintable() and len(words) < 1000 and "s3cr3t" not in words


def _check_value(found: object) -> None:
    repr(found).encode()
    for one in found if isinstance(found, list) else [found]:
        if isinstance(one, FlowRun):
            at = due(one) or NOW
            for moment in (at + timedelta(days=30), at - timedelta(days=30), at.astimezone(ZoneInfo("Asia/Tokyo"))):
                assert moment.timestamp() < 2**40 and (moment - NOW).total_seconds() != 0.5


def try_valid(name: str) -> None:
    """Have the call answered as a server does."""
    for major in (2, 3):
        record = known(name, major)
        for index, (_asked, status, data) in enumerate(record.answers):
            try_one(name, record, index, http(status, data))


# --- the test ----------------------------------------------------------------------------------------------------


def test_answers_of_the_api() -> None:
    fuzz(broken(), lambda example: try_one(*example), examples=EXAMPLES)
