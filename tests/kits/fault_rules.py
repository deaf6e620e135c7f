"""What the fault-injecting proxy can do to a call, and to which calls."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """What is done to a call; made by the functions below."""

    kind: str
    status: int = 0
    retry_after: str | None = None
    seconds: float = 0.0
    maintenance: bool = False  # the answer says that it is for this reason

    @property
    def forwards(self) -> bool:
        """Whether the server hears of the call, and acts."""
        return self.kind in ("acted", "lost", "half", "slow")

    @property
    def headers(self) -> dict[str, str]:
        """Those of the answer that say what a client is to do."""
        later = {} if self.retry_after is None else {"Retry-After": self.retry_after}
        return {**later, **({"Prefect-Maintenance": "true"} if self.maintenance else {})}


def answer(status: int, *, retry_after: str | None = None) -> Fault:
    """Answer with this status; the server hears nothing. `retry_after` is seconds or an HTTP date."""
    return Fault("answer", status, retry_after)


def maintenance() -> Fault:
    """Answer as a server in maintenance; the server hears nothing."""
    return Fault("answer", 503, maintenance=True)


def acted(status: int, *, retry_after: str | None = None) -> Fault:
    """The server acts, and the asker hears this status."""
    return Fault("acted", status, retry_after)


def lost() -> Fault:
    """The server acts, and the connection is dropped instead of the answer."""
    return Fault("lost")


def half() -> Fault:
    """The server acts, and half of its answer comes before the connection is dropped."""
    return Fault("half")


def drop() -> Fault:
    """The connection is dropped; the server hears nothing."""
    return Fault("drop")


def garbage() -> Fault:
    """200 with a body that is no JSON; the server hears nothing."""
    return Fault("garbage")


def hang() -> Fault:
    """No answer, until the rules are cleared; the server hears nothing."""
    return Fault("hang")


def slow(seconds: float) -> Fault:
    """The answer comes this much later."""
    return Fault("slow", seconds=seconds)


def login() -> Fault:
    """A redirect to a page of HTML, as a portal in front of a network does it."""
    return Fault("login")


@dataclass
class Rule:
    """Which calls a fault is for: the `first`th that matches and those after it, `count` in all (None: for ever)."""

    fault: Fault
    method: str = ""  # a regular expression, for the whole method; "" is any
    path: str = ""  # a regular expression, looked for in the path
    who: str | None = None
    first: int = 1
    count: int | None = None
    matched: int = 0
    struck: int = 0

    def strikes(self, who: str, method: str, path: str) -> bool:
        """Whether this call is one of them; counts it."""
        if self.who not in (None, who) or (self.method and not re.fullmatch(self.method, method)):
            return False
        if not re.search(self.path, path):
            return False
        self.matched += 1
        if self.matched < self.first or (self.count is not None and self.struck >= self.count):
            return False
        self.struck += 1
        return True
