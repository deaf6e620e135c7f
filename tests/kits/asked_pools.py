"""Requests about work pools of a FakePrefect, and their answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

from runnerd.control.backend.api_calls import ApiCaller
from runnerd.control.backend.pools import PoolsBackend
from runnerd.control.contract import HostPools, Refused
from runnerd.core.prefect import NewPool, NewQueue
from tests.kits.engine import an_ambient
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.nouns import Json, LogLines, fake_api

TEMPLATE = {"job_configuration": {"command": "{{ command }}"}, "variables": {"properties": {"command": {}}}}
OWN = {"job_configuration": {"own": "1"}, "variables": {}}
_IS_WHAT_THE_HOST_HAS: type[HostPools] = PoolsBackend


async def asked(prefect: FakePrefect, what: Callable[[PoolsBackend], Coroutine[Any, Any, Json | Refused]]) -> Any:
    """The answer, whatever it is."""
    call_api = ApiCaller(ambient=an_ambient(LogLines(), now=lambda: datetime.now(UTC), clock=time.monotonic))
    pools = PoolsBackend(
        api=fake_api(prefect), call_api=call_api, now=lambda: datetime.now(UTC), served=lambda: {"served"}
    )
    return await what(pools)


def no(answer: object, status: int, *words: str) -> None:
    assert isinstance(answer, Refused)
    assert answer.status == status
    assert [word for word in words if word not in answer.detail] == []


async def create(prefect: FakePrefect, name: str = "etl", *, update: bool = False, **about: Json) -> Any:
    return await asked(prefect, lambda pools: pools.create_pool(NewPool(name=name, **about), update=update))


async def create_queue(prefect: FakePrefect, pool: str, name: str, **about: Json) -> Any:
    return await asked(prefect, lambda pools: pools.create_queue(NewQueue(pool=pool, name=name, **about)))


async def preview(prefect: FakePrefect, pool: str | None = "etl", queue: str | None = None, *, hours: int = 1) -> Any:
    return await asked(prefect, lambda pools: pools.preview(pool, queue, hours=hours))
