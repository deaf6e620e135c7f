"""What every call shares: answers made into nouns, names that can stand in a path, ids, and pages of them.

An answer that cannot be read is the server's trouble (ApiAway), of a list only the item; a name or an id that can be
nobody's is found out here, before a request.
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

PAGE = 200  # the servers' own limit of what one answer may hold
ABSENT = frozenset({404})
REFUSED = frozenset({404, 409, 422})
_NOT_IN_NAMES = frozenset("/%&><")  # the servers refuse them; a slash would also name another route
_STEPS = frozenset({".", ".."})  # of a path: a client or a proxy takes them out, and another route is left
_SURROGATES = re.compile("[\ud800-\udfff]")  # bytes of a command line that were no UTF-8

T = TypeVar("T")


class Reader:
    """Reads what one Transport brings."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.skipped = Skipped()

    def read(self, what: str, data: Json, parse: Callable[[Json], T]) -> T:
        """What `parse` makes of an answer; raises ApiAway where it is none of Prefect's."""
        try:
            found = parse(data)
        except (Unreadable, KeyError, TypeError) as error:
            raise self._transport.misunderstood(what, str(error)) from None
        self._transport.understood(what)
        return found

    def runs(self, reply: Reply, parse: Callable[[Json], FlowRun] = parse_flow_run) -> list[FlowRun]:
        """The flow runs of a list; those that cannot be read are left out and counted."""
        runs, bad = self.read("flow runs", reply.data, lambda data: parse_each(data, parse))
        if bad:
            self.skipped = Skipped(count=self.skipped.count + len(bad), why=bad[-1])
        return runs


def refused(reply: Reply) -> ApiRefusal:
    """A 4xx that is an answer, in the server's words."""
    return ApiRefusal(reason=server_words(reply.data) or f"HTTP {reply.status}")


def why_no_name(name: str) -> str | None:
    """Why nothing on a server can be called so; None when it can."""
    if not name.strip("' \""):
        return "a name cannot be empty"
    if _NOT_IN_NAMES & set(name):
        return f"{name!r} has one of the characters / % & > < in it, which no name may have"
    if name in _STEPS or _SURROGATES.search(name):
        return f"{name!r} cannot be a name: no request could ask for it"
    return None


def in_path(*names: str) -> str | None:
    """These names as steps of a path, None when one of them can be nobody's."""
    if any(why_no_name(name) for name in names):
        return None
    return "/".join(quote(name, safe="") for name in names)


def pages(ids: Sequence[str]) -> Iterator[list[str]]:
    """Those that are ids, as many at a time as one request may ask for."""
    known = [each for each in ids if is_uuid(each)]
    for start in range(0, len(known), PAGE):
        yield known[start : start + PAGE]


def is_uuid(text: str) -> bool:
    """Whether it can be an id at all; the majors answer one that is none differently."""
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False
