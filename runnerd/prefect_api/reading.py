"""Reads answers, and checks names and ids before they are sent; all calls share this module.

An unreadable answer raises ApiAway; an unreadable item of a list is only left out, and noted once. A name or an id
that no object of a server can have is found before a request.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import TypeVar
from urllib.parse import quote

from runnerd.core.errors import ApiAway
from runnerd.core.place import Json
from runnerd.core.prefect import FlowRun
from runnerd.prefect_api.answers import ApiRefusal, Page, Skipped
from runnerd.prefect_api.failure_words import server_words
from runnerd.prefect_api.left_out import LeftOut
from runnerd.prefect_api.parse import parse_each, parse_offer
from runnerd.prefect_api.transport import Reply, Transport
from runnerd.prefect_api.values import ODD, is_uuid

PAGE = 200  # items; the servers return no more in one answer
ABSENT = frozenset({404})
TOO_LONG = "it is longer than an answer may be"
REFUSED = frozenset({404, 409, 422})
_NOT_IN_NAMES = frozenset("/%&><")  # the servers refuse them; a slash would also name another route
_DOT_SEGMENTS = frozenset({".", ".."})  # clients and proxies remove them from a path, which then names another route
_SURROGATES = re.compile("[\ud800-\udfff]")  # bytes of a command line that were not UTF-8

T = TypeVar("T")


class Reader:
    """Reads the answers of one Transport. `note_left_out` is called with words for each item that is left out anew."""

    def __init__(self, transport: Transport, *, note_left_out: Callable[[str], None] | None = None) -> None:
        self._transport = transport
        self._left_out = LeftOut(note=note_left_out)

    @property
    def skipped(self) -> Skipped:
        """What was left out so far."""
        return self._left_out.skipped

    def read(self, what: str, data: Json, parse: Callable[[Json], T]) -> T:
        """Parse an answer with `parse`; raises ApiAway when the answer is not one of Prefect's."""
        try:
            found = parse(data)
        except ODD as error:
            raise self._transport.note_unreadable(what, str(error)) from None
        self._transport.note_readable(what)
        return found

    def items(self, what: str, reply: Reply, parse: Callable[[Json], T]) -> list[T]:
        """Parse a list; unreadable items are left out, counted, and noted once."""
        found, bad = self.read(what, reply.data, lambda data: parse_each(data, parse))
        self._left_out.add(what, bad)
        return found

    def page(self, reply: Reply, limit: int, parse: Callable[[Json], FlowRun] = parse_offer) -> Page:
        """Parse a page of flow runs, of which `limit` were asked for."""
        runs = self.items("flow runs", reply, parse)
        readable = {run.id for run in runs}
        odd = [item for item in reply.data if isinstance(item, dict) and item.get("id") not in readable]
        deployments = (item.get("deployment_id") for item in odd)
        unreadable = frozenset(one for one in deployments if isinstance(one, str))
        return Page(runs, full=len(reply.data) >= limit, unreadable=unreadable)

    def leave_out(self, what: str, why: str) -> None:
        """Note something that was left out because no answer about it is short enough."""
        self._left_out.add(what, [why])

    async def filtered(
        self,
        what: str,
        path: str,
        ids: Sequence[str],
        choose: Callable[[Sequence[str]], Mapping[str, Json]],
        parse: Callable[[Json], T],
    ) -> list[T]:
        """Request those of these ids that `choose` makes a filter of, as many at a time as one answer can hold."""

        async def ask(some: Sequence[str]) -> list[T]:
            body = {**choose(some), "limit": PAGE}
            reply = await self._transport.request("POST", path, body=body, sure=True, shrinks=True)
            return self.items(what, reply, parse)

        found: list[T] = []
        for page in pages(ids):
            found += await self.by_halves(page, ask, give_up=lambda one: self.leave_out(what, f"{one}: {TOO_LONG}"))
        return found

    async def by_halves(
        self,
        ids: Sequence[str],
        ask: Callable[[Sequence[str]], Awaitable[list[T]]],
        *,
        give_up: Callable[[str], None],
    ) -> list[T]:
        """Ask about all these ids at once, or about halves of them while the answer is too long.

        `give_up` is called with each id about which alone the answer is too long. Raises ApiError.
        """
        try:
            return await ask(ids)
        except ApiAway as error:
            if not error.too_long:
                raise
        if len(ids) == 1:
            give_up(ids[0])
            return []
        middle = len(ids) // 2
        first = await self.by_halves(ids[:middle], ask, give_up=give_up)
        return first + await self.by_halves(ids[middle:], ask, give_up=give_up)


def refused(reply: Reply) -> ApiRefusal:
    """Make a refusal, with the server's words, from a 4xx that is an answer."""
    return ApiRefusal(reason=server_words(reply.data) or f"HTTP {reply.status}")


def why_no_name(name: str) -> str | None:
    """Say why no object on a server can have this name; None when one can."""
    if not name.strip("' \""):
        return "a name cannot be empty"
    if _NOT_IN_NAMES & set(name):
        return f"{name!r} contains one of the characters / % & > <, which are not allowed in names"
    if name in _DOT_SEGMENTS or _SURROGATES.search(name):
        return f"{name!r} cannot be a name: it cannot be part of a request's path"
    return None


def in_path(*names: str) -> str | None:
    """Quote and join names for a path; None when no object can have one of them."""
    if any(why_no_name(name) for name in names):
        return None
    return "/".join(quote(name, safe="") for name in names)


def pages(ids: Sequence[str]) -> Iterator[list[str]]:
    """Leave out what cannot be an id, and split the rest into pages of one request each."""
    valid = [each for each in ids if is_uuid(each)]
    for start in range(0, len(valid), PAGE):
        yield valid[start : start + PAGE]
