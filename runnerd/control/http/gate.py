"""Admits requests that come over TCP: by their token, by the page that they come from, and by the name they ask for.

Invariants: a request that changes something, and every request to an address other than loopback, has the token; no
page of another site can make a browser send one that is answered (Origin), nor read an answer by a name of its own that
leads to this host (Host). While the token cannot be read, nothing that needs it is answered. Tokens are compared in
constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Collection
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from runnerd.control.http.exchange import Reply, Request, StreamReply
from runnerd.control.http.problem import HttpProblem
from runnerd.control.http.router import Router
from runnerd.core.json_words import shorten, show_value

_READS = ("GET", "HEAD")
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="runnerd"'}


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSettings:
    """What is admitted. `names`: those of this host beside addresses of loopback; `open_to_others`: to
    other hosts too.

    `token`: None without http.token_file; `token_problem`: why it cannot be read, None while it can.
    """

    names: Collection[str] = ()
    open_to_others: bool = False
    token: str | None = field(default=None, repr=False)
    token_problem: str | None = None


class Gate:
    """Admits requests, and hands them to `router`; `settings` may be replaced between two requests."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self.settings = GateSettings()

    async def answer(self, request: Request) -> Reply | StreamReply:
        """Answer an admitted request. Raises HttpProblem for any other."""
        self._check_origin(request)
        if not self._has_token(request):
            self._check_host(request.headers.get("host"))
            changes = request.method not in _READS and self._router.has(request)
            if self.settings.open_to_others or changes:
                raise self._refuse(request)
        return await self._router.answer(request)

    def _has_token(self, request: Request) -> bool:
        """Whether the request shows the token. Raises HttpProblem 401 for a wrong one."""
        shown = request.headers.get("authorization")
        if shown is None or self.settings.token is None:
            return False
        scheme, _, given = shown.partition(" ")
        if scheme.lower() == "bearer" and _same(given.strip(), self.settings.token):
            return True
        raise HttpProblem(401, "the request's token is not that of http.token_file", headers=_CHALLENGE)

    def _refuse(self, request: Request) -> HttpProblem:
        what = f"{request.method} {shorten('/' + '/'.join(request.path))}"
        if self.settings.token_problem is not None:
            return HttpProblem(503, f"cannot admit {what}: {self.settings.token_problem}")
        if self.settings.token is None:
            return HttpProblem(403, f"{what} needs a token, and http.token_file of this host names none")
        detail = f"{what} needs the token of this host in a header (Authorization: Bearer TOKEN)"
        return HttpProblem(401, detail, headers=_CHALLENGE)

    def _check_origin(self, request: Request) -> None:
        origin = request.headers.get("origin")
        if origin is not None and not _is_of(origin, request.headers.get("host")):
            raise HttpProblem(403, f"requests of pages of another site are refused: {show_value(origin)}")

    def _check_host(self, host: str | None) -> None:
        """Refuse a name that is not this host's: it may be one that a page has made lead here (DNS rebinding).

        Each browser sends a name; a probe by HTTP/1.0 sends none.
        """
        if host is None:
            return
        name = _name_in(host)
        if name in self.settings.names or name == "localhost" or _is_loopback(name):
            return
        raise HttpProblem(421, f"this host is not called {show_value(host)}; ask it by its address")


def _same(given: str, token: str) -> bool:
    """Compare in a time that depends on neither, not on their lengths either."""
    digests = [hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest() for text in (given, token)]
    return hmac.compare_digest(*digests)


def _is_of(origin: str, host: str | None) -> bool:
    try:
        return bool(host) and urlsplit(origin).netloc.lower() == str(host).lower()
    except ValueError:
        return False


def _name_in(host: str) -> str:
    """Return the name in a Host header, without the port and the brackets of an IPv6 address."""
    text = host.strip().lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0].rstrip(".")


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
