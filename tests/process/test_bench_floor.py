"""The floor makes all requests of all runs, and says what failed."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.bench.asking import Asker
from tests.bench.floor import Floor, Request
from tests.bench.waiting import Deadline, OutOfTime
from tests.kits.fakes.fake_prefect import FakePrefect

STATES = ("PENDING", "RUNNING", "COMPLETED")


def of_a_run(kind: str) -> Request:
    details = {"transition_id": "TRANSITION-ID"} if kind == "PENDING" else {}
    body: dict[str, Any] = {"state": {"type": kind, "state_details": details}}
    return Request("POST", "/flow_runs/RUN-ID/set_state", json.dumps(body))


@contextlib.contextmanager
def floor_at(prefect: FakePrefect, *more: Request, seconds: float = 60.0) -> Iterator[Floor]:
    with prefect.serve() as url, contextlib.closing(Asker(url, Deadline(60))) as asker:
        flow_id = asker.call("POST", "/flows/", {"name": "bench"})["id"]
        made = asker.call("POST", "/deployments/", {"name": "one", "flow_id": flow_id})
        requests = [*map(of_a_run, STATES), *more]
        yield Floor(url=url, deployment_id=made["id"], requests=requests, deadline=Deadline(seconds))


def test_every_run_of_a_burst_has_its_requests() -> None:
    prefect = FakePrefect(major=3)
    with floor_at(prefect) as floor:
        assert floor.burst(5, 2) > 0
        assert floor.failed == 0
    assert [run["state"]["type"] for run in prefect.runs.values()] == ["COMPLETED"] * 5


def test_the_floor_of_a_start_ends_where_code_would_begin() -> None:
    prefect = FakePrefect(major=3)
    with floor_at(prefect) as floor:
        assert floor.adhoc() > 0
        assert floor.cancel() > 0
    assert [run["state"]["type"] for run in prefect.runs.values()] == ["COMPLETED", "CANCELLED"]


def test_a_burst_that_runs_out_of_time_is_no_figure() -> None:
    with floor_at(FakePrefect(major=3), seconds=0.0) as floor, pytest.raises(OutOfTime):
        floor.burst(3, 2)
