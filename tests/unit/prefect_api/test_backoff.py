"""backoff.py: requests that are repeated until the API answers."""

from __future__ import annotations

import asyncio

import pytest

from runnerd.core.backoff import Backoff
from runnerd.core.errors import ApiAway, ApiDenied, ApiRejected
from runnerd.prefect_api.backoff import persist
from tests.kits.jump_loop import START_S

AWAY = ApiAway("away")


class Api:
    """Fails with each of these, then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.asked_at: list[float] = []

    async def ask(self) -> str:
        self.asked_at.append(asyncio.get_running_loop().time() - START_S)
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


async def persisting(*errors: Exception) -> tuple[Api, str]:
    api = Api(*errors)
    backoff = Backoff(first_s=1.0, cap_s=8.0, uniform=lambda: 1.0)
    return api, await persist(api.ask, backoff=backoff)


async def test_persist_asks_until_there_is_an_answer() -> None:
    api, answer = await persisting(AWAY, AWAY, ApiDenied("401"), ApiAway("busy", retry_after_s=10.0))
    assert answer == "answer"
    assert api.asked_at == [0.0, 1.0, 3.0, 11.0, 23.0]


async def test_persist_outlives_a_day_of_outage() -> None:
    api, answer = await persisting(*[AWAY] * 10_000)
    assert answer == "answer"
    assert api.asked_at[-1] > 79_000


async def test_persist_lets_a_wrong_request_through() -> None:
    with pytest.raises(ApiRejected):
        await persisting(AWAY, ApiRejected("no", status=422))
