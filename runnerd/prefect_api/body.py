"""Reads the body of an answer, bounded from the first byte to the last, and makes JSON of it.

Invariants: no more than MAX_ANSWER_BYTES of a body is held, compressed or not; a body that takes long to parse is
parsed outside of the event loop; JSON that leaves here is at most DEPTH_MAX deep, has only numbers that are finite, and
only text that is Unicode.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import zlib
from dataclasses import dataclass

import httpx

from runnerd.core.place import Json

MAX_ANSWER_BYTES = 8 * 2**20
IN_LOOP_BYTES = 2**20  # a body longer than this is parsed in a thread
DEPTH_MAX = 200  # levels; the code that walks through JSON uses up to three frames a level, of a thousand
_VALUES_MAX = 500_000  # values of one answer: each takes some hundred bytes of memory, whatever its text takes
_DIGITS_MAX = 400  # of one number
_BROKEN = "has a broken compression"
_TOO_LONG = f"is longer than {MAX_ANSWER_BYTES // 2**20} MiB, the most that runnerd reads"

# A call for each number would cost seconds: only where there is one that may be too long or too large for a float.
_ODD_NUMBER = re.compile(rb"(?<!\d)\d{300}|[eE]\+?\d{3}")
_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_BLOCK_BYTES, _OVERLAP_BYTES = 64 * 1024, 400  # the overlap is longer than any match


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """The JSON of a body, None for an empty one; or `why` it cannot be used, such as `is not JSON`.

    `too_long`: an answer with fewer items might be short enough.
    """

    data: Json = None
    why: str | None = None
    too_long: bool = False


@dataclass(frozen=True, slots=True)
class TooDeep:
    """Stands in a list for an item of JSON that is deeper than DEPTH_MAX. `id`: what the item says its id is."""

    id: Json


async def read_body(response: httpx.Response) -> Body:
    """Read a body that has not been read yet. Raises httpx.HTTPError when the connection breaks."""
    content = await _read_bytes(response)
    if isinstance(content, Body):
        return content
    if len(content) > IN_LOOP_BYTES:
        return await asyncio.to_thread(parse_body, content)
    return parse_body(content)


async def _read_bytes(response: httpx.Response) -> bytes | Body:
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip"):
        return Body(why="has a Content-Encoding that was not asked for")
    # httpx would decompress each block as a whole, and 64 kB can be gigabytes.
    unzip = None if encoding in ("", "identity") else zlib.decompressobj(16 + zlib.MAX_WBITS)
    body = bytearray()
    assert isinstance(response.stream, httpx.AsyncByteStream)
    async for block in response.stream:
        try:
            body += block if unzip is None else unzip.decompress(block, MAX_ANSWER_BYTES - len(body) + 1)
        except zlib.error:
            return Body(why=_BROKEN)
        if len(body) > MAX_ANSWER_BYTES:
            return Body(why=_TOO_LONG, too_long=True)
    if unzip is not None and body and not unzip.eof:
        return Body(why=_BROKEN)
    return bytes(body)


def parse_body(content: bytes) -> Body:
    """Make JSON of a whole body. Bytes that are not UTF-8 become U+FFFD, as do lone surrogates."""
    if sum(content.count(mark) for mark in (b",", b"[", b"{")) > _VALUES_MAX:
        return Body(why=f"has more than {_VALUES_MAX} values, the most that runnerd reads", too_long=True)
    text = content.decode("utf-8-sig", errors="replace")
    if not text.strip():
        return Body()
    try:
        data = _decoder(odd_numbers=_contains(content, _ODD_NUMBER)).decode(text)
    except (ValueError, RecursionError):
        return Body(why="is not JSON")
    if isinstance(data, list):
        data = [TooDeep(id_of(item)) if _is_deep(item) else item for item in data]
    elif _is_deep(data):
        return Body(why=f"is more than {DEPTH_MAX} levels deep")
    return Body(data=_without_surrogates(data) if _contains(content, _ESCAPED_SURROGATE) else data)


def _contains(content: bytes, pattern: re.Pattern[bytes]) -> bool:
    """Whether the pattern is in there; block by block, since a search keeps all other threads waiting."""
    starts = range(0, len(content), _BLOCK_BYTES)
    return any(pattern.search(content, start, start + _BLOCK_BYTES + _OVERLAP_BYTES) for start in starts)


def _decoder(*, odd_numbers: bool) -> json.JSONDecoder:
    if odd_numbers:
        return json.JSONDecoder(parse_int=_whole, parse_float=_finite, parse_constant=_no_number)
    return json.JSONDecoder(parse_constant=_no_number)


def _no_number(_constant: str) -> None:
    """Read NaN and Infinity, which are no JSON, as null."""


def _whole(digits: str) -> int | None:
    """Read a whole number; one of a thousand digits is none, since it takes longer to read than the whole answer."""
    return int(digits) if len(digits) <= _DIGITS_MAX else None


def _finite(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None


def _is_deep(data: Json) -> bool:
    """Whether it is deeper than DEPTH_MAX; level by level, since recursion would be the problem itself."""
    level = [data]
    for _ in range(DEPTH_MAX + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def id_of(item: Json) -> Json:
    """Return what an item of a list says its id is; what a pool offers has the id of its run one level further down."""
    if isinstance(item, TooDeep):
        return item.id
    if not isinstance(item, dict):
        return None
    return item["id"] if "id" in item else id_of(item.get("flow_run"))


def _without_surrogates(data: Json) -> Json:
    """Replace lone surrogates: no journal, log, socket or environment takes text that has them."""
    if isinstance(data, str):
        return data.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(data, list):
        return [_without_surrogates(item) for item in data]
    if isinstance(data, dict):
        return {_without_surrogates(key): _without_surrogates(value) for key, value in data.items()}
    return data
