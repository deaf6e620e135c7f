"""A transport with servers that answer as a test says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from runnerd.core.errors import ApiError
from runnerd.core.prefect import ApiCondition, ApiHealth
from runnerd.prefect_api.credentials import Credentials
from runnerd.prefect_api.transport import Reply, Transport

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
URL = "http://prefect.test:4200/api"
SECRET = "pnu_s3cr3t-key"
RUN = "6d1f3c0e-0d1b-4b41-9f3e-2b8a3f8e4c11"
Answer = Callable[[httpx.Request], httpx.Response]


class Clock:
    """A wall clock that a test moves."""

    def __init__(self) -> None:
        self.at = NOW

    def __call__(self) -> datetime:
        return self.at


class Rig:
    """A transport over a scripted server; `seen` is what the server got, `told` what the health said."""

    def __init__(self, answer: Answer, *, url: str = URL, headers: dict[str, str] | None = None) -> None:
        self.seen: list[httpx.Request] = []
        self.told: list[ApiHealth] = []
        self.given = Credentials(key=SECRET)
        self.reads = 0
        self.clock = Clock()
        self.opened: list[httpx.AsyncClient] = []

        def record(request: httpx.Request) -> httpx.Response:
            self.seen.append(request)
            if request.url.path.endswith("/csrf-token") and answer is not csrf_server:
                return httpx.Response(422, json={"detail": "CSRF protection is disabled."})
            return answer(request)

        def open_one(_url: httpx.URL) -> httpx.AsyncClient:
            self.opened.append(httpx.AsyncClient(transport=httpx.MockTransport(record)))
            return self.opened[-1]

        self.transport = Transport(
            url=url,
            credentials=self._read,
            headers=headers or {},
            timeout_s=30,
            now=self.clock,
            open_client=open_one,
            on_health=self.told.append,
        )

    def _read(self) -> Credentials:
        self.reads += 1
        return self.given

    async def ask(self, method: str = "GET", path: str = "/x", **more: Any) -> Reply:
        try:
            return await self.transport.request(method, path, **more)
        finally:
            assert SECRET not in repr(self.transport.health)

    async def fail(self, kind: type[ApiError], method: str = "GET", path: str = "/x", **more: Any) -> Any:
        with pytest.raises(kind) as caught:
            await self.ask(method, path, **more)
        assert SECRET not in str(caught.value)
        # An exception of httpx in the chain would be in the traceback that somebody logs, headers and all.
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__ or caught.value.__context__ is None
        return caught.value

    @property
    def condition(self) -> ApiCondition:
        return self.transport.health.condition

    @property
    def detail(self) -> str:
        return self.transport.health.detail


def says(status: int, body: Any = None, **headers: str) -> Answer:
    return lambda request: httpx.Response(
        status, json=body, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )


def in_turn(*answers: Answer) -> Answer:
    left: Iterator[Answer] = iter(answers)
    return lambda request: next(left)(request)


def csrf_server(request: httpx.Request) -> httpx.Response:
    raise AssertionError("replaced by each test")
