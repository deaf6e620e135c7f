"""Asks for lists page by page, in answers that are short enough.

Invariant: an answer that is too long leads to requests for fewer items, and a filter ends whatever the server answers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from runnerd.core.errors import ApiAway
from runnerd.core.place import Json
from runnerd.core.prefect import FlowRun
from runnerd.prefect_api.answers import Page
from runnerd.prefect_api.reading import ABSENT, PAGE, TOO_LONG, Reader
from runnerd.prefect_api.transport import Reply, Transport

NO_VALUES = frozenset[int]()
_PAGES_MAX = 250  # of one filter: a server that ignores the offset would answer for ever

T = TypeVar("T")


class PageSize:
    """Asks for a page with fewer items while the answer is too long, and begins with the size that fitted last."""

    def __init__(self) -> None:
        self._size = PAGE

    async def ask(self, request: Callable[[int], Awaitable[Reply]], *, most: int = PAGE) -> tuple[Reply, int]:
        """Return the answer, and how many items were asked for. Raises ApiAway, also when one item is too long."""
        size = min(self._size, most)
        while True:
            try:
                reply = await request(size)
            except ApiAway as error:
                if not error.too_long or size == 1:
                    raise
                size = self._size = max(1, size // 4)
                continue
            if size == self._size and isinstance(reply.data, list) and len(reply.data) < size:
                self._size = PAGE  # that was the last page
            return reply, size


class Pages:
    """Asks for pages of flow runs, and for all pages of filters."""

    def __init__(self, *, transport: Transport, reader: Reader) -> None:
        self._transport = transport
        self._reader = reader
        self._sizes: dict[str, PageSize] = {}  # by path

    async def first(
        self,
        path: str,
        body: Mapping[str, Json],
        *,
        limit: int | None,
        parse: Callable[[Json], FlowRun],
        values: frozenset[int] = ABSENT,
    ) -> Page | None:
        """Read the first runs that are listed at `path`; None where that does not exist. Raises ApiError."""

        async def request(size: int) -> Reply:
            # Without a limit the server applies its own, which an administrator may have lowered.
            limited = body if limit is None and size == PAGE else {**body, "limit": size}
            return await self._transport.request("POST", path, body=limited, values=values, sure=True, shrinks=True)

        page_size = self._sizes.setdefault(path, PageSize())
        reply, size = await page_size.ask(request, most=PAGE if limit is None else min(limit, PAGE))
        return None if reply.status == 404 else self._reader.page(reply, size, parse)

    async def every(self, path: str, what: str, parse: Callable[[Json], T], **chosen: Json) -> list[T]:
        """Read all pages of a filter; an empty list where the pool it filters does not exist. Raises ApiError."""
        found: list[T] = []
        page_size, offset = PageSize(), 0

        async def request(size: int) -> Reply:
            body = {**chosen, "limit": size, "offset": offset}
            return await self._transport.request("POST", path, body=body, values=ABSENT, sure=True, shrinks=True)

        for _ in range(_PAGES_MAX):
            try:
                reply, size = await page_size.ask(request)
            except ApiAway as error:
                if not error.too_long:
                    raise
                self._reader.leave_out(what, f"number {offset + 1}: {TOO_LONG}")
                offset += 1
                continue
            if reply.status == 404:
                return []
            found += self._reader.items(what, reply, parse)
            if len(reply.data) < size:
                break
            offset += size
        return found
