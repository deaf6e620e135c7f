"""A FakePrefect whose answers a test changes on their way."""

from __future__ import annotations

from collections.abc import Callable

from tests.kits.fakes.fake_prefect import FakePrefect, Json


class OddPrefect(FakePrefect):
    """`alter` is given each request (`METHOD /path`) and its answer's JSON, and returns the JSON to send."""

    alter: Callable[[str, Json], Json] = staticmethod(lambda asked, data: data)

    def _receive(
        self, method: str, url: str, headers: dict[str, str], content: bytes
    ) -> tuple[int, dict[str, str], Json]:
        status, more, data = super()._receive(method, url, headers, content)
        return status, more, self.alter(self.asked[-1], data)
