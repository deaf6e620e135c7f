"""pools/table.py: the settings and the API's answers for each pool, and its document."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runnerd.core.limits import PoolCaps
from runnerd.core.place import Place
from runnerd.core.prefect import WorkPool, WorkQueue
from runnerd.pools.table import PoolService, PoolState, PoolTable, Served, served_document
from tests.kits.nouns import NOON, Json
from tests.kits.pools import pool_settings

QUEUES = (
    WorkQueue(id="q-1", name="high", concurrency_limit=2),
    WorkQueue(id="q-2", name="low", priority=2, is_paused=True),
)


def a_pool(**changes: Json) -> WorkPool:
    return WorkPool(**{"id": "p-1", "name": "etl", "type": "process", **changes})


def known(*, pool: WorkPool | None = None, **changes: Json) -> Served:
    return Served(**{"settings": pool_settings(), "pool": pool or a_pool(), "queues": QUEUES, **changes})


# --- what is wanted ---------------------------------------------------------------------------------------------


def test_pools_stand_in_the_order_of_the_files() -> None:
    table = PoolTable()
    table.want([pool_settings("b"), pool_settings("a")])
    assert [served.name for served in table.entries()] == ["b", "a"]
    assert table.names() == {"a", "b"}
    assert table.wakes.pools.is_set()
    assert (table.get("c"), table.get(None)) == (None, None)


def test_what_is_known_stays_known_while_the_same_is_wanted() -> None:
    table = PoolTable()
    table.want([pool_settings()])
    first = table.get("etl")
    assert first is not None
    assert table.put(known(), known=first)
    moved = pool_settings(place=Place("/etc/runnerd/conf.d/99.yaml", 1, 1), problem="its file is broken by now")
    table.want([moved])
    served = table.get("etl")
    assert served is not None
    assert (served.pool, served.settings) == (a_pool(), moved)


@pytest.mark.parametrize("changes", [{"limit": 3}, {"queues": ("high",)}, {"type": "docker"}, {"run": {"user": "etl"}}])
def test_what_is_known_goes_when_something_else_is_wanted(changes: dict[str, Json]) -> None:
    table = PoolTable()
    table.want([pool_settings()])
    first = table.get("etl")
    assert first is not None
    assert table.put(known(), known=first)
    table.want([pool_settings(**changes)])
    assert table.get("etl") == Served(settings=pool_settings(**changes))


def test_news_of_what_is_not_wanted_any_more_is_not_taken() -> None:
    table = PoolTable()
    table.want([pool_settings()])
    first = table.get("etl")
    assert first is not None
    table.want([pool_settings(limit=3)])
    assert not table.put(known(), known=first)
    table.want([])
    assert not table.put(known(), known=first)
    assert table.entries() == []


# --- what is known ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("served", "state", "service", "is_open"),
    [
        (Served(settings=pool_settings()), PoolState.UNKNOWN, None, False),
        (known(), PoolState.READY, PoolService.WORKER, True),
        (known(pool=a_pool(is_paused=True)), PoolState.PAUSED, PoolService.WORKER, True),
        (known(pool=a_pool(type="prefect-agent")), PoolState.READY, PoolService.AGENT, True),
        (known(pool=a_pool(type="docker")), PoolState.READY, PoolService.OTHER, False),
        (known(problem="gone"), PoolState.INVALID, PoolService.WORKER, False),
        (Served(settings=pool_settings(), problem="gone"), PoolState.INVALID, None, False),
    ],
)
def test_how_a_pool_is_served(served: Served, state: PoolState, service: PoolService | None, is_open: bool) -> None:
    assert (served.state, served.service, served.open) == (state, service, is_open)


@pytest.mark.parametrize(
    ("own", "pools", "runs"), [(None, None, None), (3, None, 3), (None, 4, 4), (3, 4, 3), (5, 4, 4), (None, 0, 0)]
)
def test_of_two_limits_the_lower_holds(own: int | None, pools: int | None, runs: int | None) -> None:
    settings = pool_settings(limit=own, run={"limit": 1})
    served = known(settings=settings, pool=a_pool(concurrency_limit=pools))
    assert served.caps == PoolCaps(runs=runs, each_deployment=1, queues={"high": 2})


def test_our_own_limits_hold_before_the_api_has_told_of_the_pool() -> None:
    table = PoolTable()
    table.want([pool_settings("a", limit=2), pool_settings("b")])
    assert table.caps() == {"a": PoolCaps(runs=2), "b": PoolCaps()}


def test_whose_runs_the_server_counts() -> None:
    plain = replace(known(), queues=QUEUES[1:])
    assert not plain.limited
    assert not Served(settings=pool_settings(limit=3)).limited
    assert known().limited, "one of its queues has a limit"
    assert replace(plain, pool=a_pool(concurrency_limit=0)).limited


# --- for people -------------------------------------------------------------------------------------------------


def test_the_document_of_a_pool() -> None:
    served = known(pool=a_pool(concurrency_limit=7), heartbeat_at=NOON, settings=pool_settings(limit=3))
    assert served_document(served, running=2, held=1, worker=None, problem=None, heartbeats="channel") == {
        "name": "etl",
        "type": "process",
        "service": "worker",
        "state": "ready",
        "problem": None,
        "file": "/etc/runnerd/conf.d/20.yaml",
        "line": 4,
        "running": 2,
        "held": 1,
        "limit": 3,
        "concurrency_limit": 7,
        "heartbeat_at": "2025-01-01T12:00:00.000Z",
        "heartbeats": "channel",
        "queues": [
            {"name": "high", "priority": 1, "paused": False, "concurrency_limit": 2},
            {"name": "low", "priority": 2, "paused": True, "concurrency_limit": None},
        ],
        "worker": None,
    }


def test_the_document_of_a_pool_that_nobody_has_seen() -> None:
    served = Served(settings=pool_settings(type="docker"), problem="it is not there")
    told = served_document(served, running=0, held=0, worker={"pid": 17}, problem="it is not there", heartbeats=None)
    assert (told["type"], told["service"], told["state"]) == ("docker", None, "invalid")
    assert (told["concurrency_limit"], told["heartbeat_at"], told["queues"]) == (None, None, [])
    assert (told["problem"], told["worker"]) == ("it is not there", {"pid": 17})
