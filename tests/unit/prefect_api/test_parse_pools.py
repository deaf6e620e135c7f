"""parse_pools.py: work pools as no real server tells them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runnerd.core.prefect import (
    BlockDocument,
    PoolDeployment,
    StateType,
    Variable,
    WorkerSeen,
    WorkerType,
    WorkPool,
    WorkQueue,
)
from runnerd.prefect_api.parse_pools import (
    parse_block,
    parse_pool,
    parse_pool_deployment,
    parse_queue,
    parse_variable,
    parse_worker,
    parse_worker_types,
    pool_run_parser,
)
from runnerd.prefect_api.values import WHOLE_MAX, Unreadable
from tests.kits.nouns import an_id
from tests.kits.pool_answers import BLOCK, NOW, OFFERED, POOL

QUEUE = {"id": an_id("q"), "name": "default"}
DEPLOYMENT = {"id": an_id("d"), "name": "nightly", "flow_id": an_id("f")}
PARSERS: list[Callable[[Any], Any]] = [
    parse_pool,
    parse_queue,
    parse_worker,
    parse_pool_deployment,
    parse_block,
    parse_variable,
    parse_worker_types,
    pool_run_parser("etl", {an_id("q"): "default"}),
]
KEYS = sorted({*POOL, *QUEUE, *OFFERED, *OFFERED["flow_run"], *BLOCK, *DEPLOYMENT, "slug", "value", "job_variables"})
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(KEYS) | st.text(), inner),
)


@pytest.mark.parametrize("parse", PARSERS)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(data=ANYTHING)
def test_anything_is_read_or_unreadable(parse: Callable[[Any], Any], data: Any) -> None:
    try:
        assert parse(data) is not None
    except Unreadable as error:
        assert str(error)


@pytest.mark.parametrize(
    ("parse", "data", "expected"),
    [
        (parse_pool, POOL, WorkPool(id=an_id("p"), name="etl", type="process")),
        (
            parse_pool,
            {**POOL, "concurrency_limit": True, "is_paused": "no", "base_job_template": [], "status": 7},
            WorkPool(id=an_id("p"), name="etl", type="process"),
        ),
        (
            parse_pool,
            {**POOL, "concurrency_limit": 0},
            WorkPool(id=an_id("p"), name="etl", type="process", concurrency_limit=0),
        ),
        (
            parse_pool,
            {**POOL, "concurrency_limit": 10**20},
            WorkPool(id=an_id("p"), name="etl", type="process", concurrency_limit=WHOLE_MAX),
        ),
        (parse_queue, QUEUE, WorkQueue(id=an_id("q"), name="default")),
        (
            parse_queue,
            {**QUEUE, "priority": None, "filter": {}, "last_polled": "2026-11-22T12:00:00Z", "work_pool_name": "etl"},
            WorkQueue(id=an_id("q"), name="default", filter={}, last_polled=NOW, pool="etl"),
        ),
        (parse_worker, {"name": "w"}, WorkerSeen(name="w", status=None, last_heartbeat=None)),
        (
            parse_pool_deployment,
            {**DEPLOYMENT, "infra_overrides": {"a": 1, "b": 1}, "job_variables": {"b": 2}, "updated": "soon"},
            PoolDeployment(id=an_id("d"), name="nightly", flow_id=an_id("f"), job_variables={"a": 1, "b": 2}),
        ),
        (
            parse_pool_deployment,
            {**DEPLOYMENT, "infra_overrides": None, "job_variables": [], "version": 3},
            PoolDeployment(id=an_id("d"), name="nightly", flow_id=an_id("f")),
        ),
        (
            parse_block,
            {**BLOCK, "name": None},
            BlockDocument(id=an_id("b"), name=None, type_slug="process", data={"a": 1}),
        ),
        (parse_variable, {"name": "v", "value": None}, Variable(name="v", value=None)),
        (
            parse_worker_types,
            {
                "prefect": {"process": {"default_base_job_configuration": {"a": 1}, "description": "d"}, "odd": 7},
                "mine": {"process": {"default_base_job_configuration": {}}, "bare": {}},
                "none": None,
            },
            {"process": WorkerType(type="process", package="prefect", template={"a": 1}, description="d")},
        ),
    ],
)
def test_what_decides_nothing_may_be_odd(parse: Callable[[Any], Any], data: Any, expected: Any) -> None:
    assert parse(data) == expected


@pytest.mark.parametrize(
    ("parse", "data", "why"),
    [
        (parse_pool, {**POOL, "type": None}, "type is missing"),
        (parse_pool, [], "a work pool is not an object"),
        (parse_pool, {**POOL, "id": "p"}, "id is no id: 'p'"),
        (parse_queue, {**QUEUE, "name": ""}, "name is missing"),
        (parse_queue, {**QUEUE, "name": "x" * 2000}, "name is longer than 1000 characters: 'xxx"),
        (parse_worker, {}, "name is missing"),
        (parse_pool_deployment, {"id": an_id("d"), "name": "n"}, "flow_id is missing"),
        (parse_block, {**BLOCK, "data": None}, "a block's data is missing"),
        (parse_block, {**BLOCK, "block_type": None}, "a block's type is not an object"),
        (parse_variable, {"name": "v"}, "a variable's value is missing"),
        (parse_worker_types, [], "the listing of worker types is not an object"),
        (pool_run_parser("etl", {}), {"work_queue_id": an_id("q")}, "a flow run is not an object"),
        (
            pool_run_parser("etl", {}),
            {"flow_run": {"id": an_id("r"), "flow_id": an_id("f")}},
            "unknown state type null",
        ),
    ],
)
def test_what_a_run_hangs_on_must_be_there(parse: Callable[[Any], Any], data: Any, why: str) -> None:
    with pytest.raises(Unreadable, match=why):
        parse(data)


@pytest.mark.parametrize(
    ("queues", "queue"), [({an_id("q"): "default"}, "default"), ({"other": "x"}, None), ({}, None)]
)
def test_a_run_knows_its_queue_by_its_id(queues: dict[str, str], queue: str | None) -> None:
    run = pool_run_parser("etl", queues)(OFFERED)
    assert (run.pool, run.queue, run.state.type, run.state.name) == ("etl", queue, StateType.SCHEDULED, "Late")


def test_a_state_that_is_told_is_believed() -> None:
    told = {**OFFERED, "flow_run": {**OFFERED["flow_run"], "state": {"type": "PENDING", "name": "Submitting"}}}
    state = pool_run_parser("etl", {})(told).state
    assert (state.type, state.name) == (StateType.PENDING, "Submitting")
