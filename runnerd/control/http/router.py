"""The table of routes: which coroutine answers which method and path, and the 404 and 405 of what is not in it.

Answers are coroutines of (request, the path's variable segments). The table is built once and only read.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from runnerd.control.http.exchange import Reply, Request, StreamReply
from runnerd.control.http.problem import Problem

Answer = Callable[..., Awaitable[Reply | StreamReply]]


@dataclass(frozen=True, slots=True)
class Route:
    """`path` is /-separated; a segment "*" stands for any one segment, passed on to `answer` in order."""

    method: str
    path: str
    answer: Answer

    def variables(self, path: tuple[str, ...]) -> tuple[str, ...] | None:
        """The segments that stand for "*"; None when `path` is another."""
        pattern = self.path.strip("/").split("/")
        if len(pattern) != len(path):
            return None
        if any(want not in ("*", got) for want, got in zip(pattern, path, strict=True)):
            return None
        return tuple(got for want, got in zip(pattern, path, strict=True) if want == "*")


class Router:
    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = tuple(routes)

    async def answer(self, request: Request) -> Reply | StreamReply:
        """Have the request answered. Raises Problem."""
        here = [(r, v) for r in self._routes if (v := r.variables(request.path)) is not None]
        for route, variables in here:
            if route.method == request.method:
                return await route.answer(request, *variables)
        where = "/" + "/".join(request.path)
        if here:
            allow = ", ".join(sorted({route.method for route, _ in here}))
            raise Problem(405, f"{where} answers to {allow} only", headers={"Allow": allow})
        raise Problem(404, f"there is no {where} here; see /v1/status", kind="no-such-path")
