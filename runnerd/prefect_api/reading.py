"""Reads answers, and checks names and ids before they are sent; all calls share this module.

An unreadable answer raises ApiAway; an unreadable item of a list is only left out. A name or an id that no object of
a server can have is found before a request.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar
from urllib.parse import quote

from runnerd.core.place import Json
from runnerd.core.prefect import FlowRun
from runnerd.prefect_api.answers import ApiRefusal, Skipped
from runnerd.prefect_api.failure_words import server_words
from runnerd.prefect_api.parse import Unreadable, parse_each, parse_flow_run
from runnerd.prefect_api.transport import Reply, Transport

PAGE = 200  # items; the servers return no more in one answer
ABSENT = frozenset({404})
REFUSED = frozenset({404, 409, 422})
_NOT_IN_NAMES = frozenset("/%&><")  # the servers refuse them; a slash would also name another route
_DOT_SEGMENTS = frozenset({".", ".."})  # clients and proxies remove them from a path, which then names another route
_SURROGATES = re.compile("[\ud800-\udfff]")  # bytes of a command line that were not UTF-8

T = TypeVar("T")


class Reader:
    """Reads the answers of one Transport."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.skipped = Skipped()

    def read(self, what: str, data: Json, parse: Callable[[Json], T]) -> T:
        """Parse an answer with `parse`; raises ApiAway when the answer is not one of Prefect's."""
        try:
            found = parse(data)
        except (Unreadable, KeyError, TypeError) as error:
            raise self._transport.note_unreadable(what, str(error)) from None
        self._transport.note_readable(what)
        return found

    def runs(self, reply: Reply, parse: Callable[[Json], FlowRun] = parse_flow_run) -> list[FlowRun]:
        """Parse a list of flow runs; unreadable ones are left out and counted."""
        runs, bad = self.read("flow runs", reply.data, lambda data: parse_each(data, parse))
        if bad:
            self.skipped = Skipped(count=self.skipped.count + len(bad), why=bad[-1])
        return runs


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


def is_uuid(text: str) -> bool:
    """Return whether a text is a UUID; the majors answer a request with any other id differently."""
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False
