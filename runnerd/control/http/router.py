"""Finds the handler of a request by method and path; answers 404 and 405 where there is none.

A handler is a coroutine function of the request and of the variable segments of its path.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from runnerd.control.http.exchange import Reply, Request, StreamReply
from runnerd.control.http.problem import Problem

Answer = Callable[..., Awaitable[Reply | StreamReply]]


@dataclass(frozen=True, slots=True)
class Route:
    """One method and path, and the handler of its requests.

    A segment "*" of `path` matches any one segment, which is passed to the handler.
    """

    method: str
    path: str
    answer: Answer

    def variables(self, path: tuple[str, ...]) -> tuple[str, ...] | None:
        """Return the segments that match "*", in order; None when `path` does not match."""
        pattern = self.path.strip("/").split("/")
        if len(pattern) != len(path):
            return None
        if any(want not in ("*", got) for want, got in zip(pattern, path, strict=True)):
            return None
        return tuple(got for want, got in zip(pattern, path, strict=True) if want == "*")


class Router:
    """A table of routes."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = tuple(routes)

    async def answer(self, request: Request) -> Reply | StreamReply:
        """Call the handler of the request. Raises Problem."""
        here = [(r, v) for r in self._routes if (v := r.variables(request.path)) is not None]
        for route, variables in here:
            if route.method == request.method:
                return await route.answer(request, *variables)
        where = "/" + "/".join(request.path)
        if here:
            allow = ", ".join(sorted({route.method for route, _ in here}))
            raise Problem(405, f"{where} answers to {allow} only", headers={"Allow": allow})
        raise Problem(404, f"there is no {where} here; see /v1/status", kind="no-such-path")
