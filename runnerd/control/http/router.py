"""Finds the handler of a request by method and path; answers 404 and 405 where there is none.

A handler is a coroutine function of the request and of the variable segments of its path.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from runnerd.control.http.exchange import Reply, Request, StreamReply
from runnerd.control.http.guard import Guard, Level
from runnerd.control.http.problem import HttpProblem
from runnerd.core.json_words import shorten, show_value

_EXAMPLE = "/v1/status"  # on the control socket; over TCP there is none
Handler = Callable[..., Awaitable[Reply | StreamReply]]


class Access(Enum):
    """Where and when a route is served; its level says to whom."""

    PUBLIC = auto()  # over TCP too, to clients that are not identified
    LOCAL = auto()  # over the Unix socket only
    ADOPTED = auto()  # over the Unix socket only, once the runs of the previous daemon are known


@dataclass(frozen=True, slots=True)
class Route:
    """One method and path, the handler of its requests, the level that a client needs, and the access.

    A segment "*" of `path` matches any one segment, which is passed to the handler. `query` lists the known keys of the
    query; any other is refused, because a misspelt filter would list everything. PUBLIC routes ignore them: probes and
    scrapers add keys of their own.
    """

    method: str
    path: str
    handler: Handler
    level: Level
    access: Access = Access.LOCAL
    query: frozenset[str] = frozenset()

    def check_query(self, query: Mapping[str, str]) -> None:
        """Refuse the keys that the route does not know. Raises HttpProblem 422."""
        unknown = sorted(query.keys() - self.query)
        if unknown and self.access is not Access.PUBLIC:
            known = f"known are {', '.join(sorted(self.query))}" if self.query else "the path takes no query"
            raise HttpProblem(422, f"{show_value(unknown[0])} is not known in the query; {known}")

    def variables(self, path: tuple[str, ...]) -> tuple[str, ...] | None:
        """Return the segments that match "*", in order; None when `path` does not match."""
        pattern = self.path.strip("/").split("/")
        if len(pattern) != len(path):
            return None
        if any(want not in ("*", got) for want, got in zip(pattern, path, strict=True)):
            return None
        return tuple(got for want, got in zip(pattern, path, strict=True) if want == "*")


class Router:
    """A table of routes; `guard` checks each request, None for a port whose routes are for everybody."""

    def __init__(self, routes: Sequence[Route], *, guard: Guard | None) -> None:
        self._routes = tuple(routes)
        self._guard = guard

    def has(self, request: Request) -> bool:
        """Whether there is a handler for the request."""
        return any(r.method == request.method and r.variables(request.path) is not None for r in self._routes)

    async def answer(self, request: Request) -> Reply | StreamReply:
        """Call the handler of the request. Raises HttpProblem."""
        matches = [(r, v) for r in self._routes if (v := r.variables(request.path)) is not None]
        for route, variables in matches:
            if route.method == request.method:
                if self._guard is not None:
                    what = f"{request.method} /{'/'.join(request.path)}"
                    await self._guard.check(request.peer, route.level, what)
                route.check_query(request.query)
                return await route.handler(request, *variables)
        path = shorten("/" + "/".join(request.path))
        if matches:
            allow = ", ".join(sorted({route.method for route, _ in matches}))
            raise HttpProblem(405, f"{path} allows only {allow}", headers={"Allow": allow})
        raise HttpProblem(404, f"there is no path {path}; {self._example()} is one", kind="no-such-path")

    def _example(self) -> str:
        """Return a path that anybody can try here."""
        paths = [route.path for route in self._routes if route.method == "GET" and "*" not in route.path]
        return _EXAMPLE if _EXAMPLE in paths or not paths else paths[0]
