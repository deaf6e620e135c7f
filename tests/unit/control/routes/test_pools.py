"""The routes of work pools and queues: what they answer, what they check, and that who asked for a change is logged."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runnerd.control.fields import POOL_FIELDS, QUEUE_FIELDS
from runnerd.core.numbers import LIMIT_MAX
from runnerd.core.prefect import WorkPool, WorkQueue
from tests.kits.fakes.raw_http import ask
from tests.kits.fakes.serving import Serving, serving

TEMPLATE = {"job_configuration": {}, "variables": {}}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Serving]:
    with serving(tmp_path) as it:
        it.host.prefect.pools.add_worker_type("process", "prefect", TEMPLATE)
        it.host.prefect.pools.create_pool("etl", concurrency_limit=5, description="old")
        it.host.prefect.pools.create_queue("etl", "a b", concurrency_limit=2)
        yield it


def done(served: Serving, method: str, path: str, body: object = None, *, status: int = 200) -> Any:
    got, document = ask(served, method, path, body)
    assert got == status, document
    return document


def pool(served: Serving) -> WorkPool:
    return served.host.prefect.pools.read_pool("etl")


def queue(served: Serving) -> WorkQueue:
    return served.host.prefect.pools.read_queue("etl", "a b")


def test_looking(served: Serving) -> None:
    assert [set(its) for its in done(served, "GET", "/v1/pools")] == [POOL_FIELDS]
    assert done(served, "GET", "/v1/pools/etl")["served"] is True
    for path in ("/v1/queues", "/v1/pools/etl/queues"):
        assert [its["name"] for its in done(served, "GET", path)] == ["default", "a b"]
    assert set(done(served, "GET", "/v1/pools/etl/queues/a%20b")) == QUEUE_FIELDS
    for path in ("/v1/preview", "/v1/pools/etl/preview", "/v1/pools/etl/queues/a%20b/preview?hours=24"):
        assert done(served, "GET", path) == {
            "runs": [],
            "paused": [],
            "paused_deployments": [],
            "unchecked_limits": [],
            "whole": True,
        }
    assert [its["type"] for its in done(served, "GET", "/v1/worker-types")] == ["process"]
    assert done(served, "GET", "/v1/worker-types/process")["base_job_template"] == TEMPLATE
    assert served.log.lines == []


def test_changing_a_pool(served: Serving) -> None:
    assert done(served, "POST", "/v1/pools/etl/pause")["paused"] is True
    assert done(served, "POST", "/v1/pools/etl/resume", {})["paused"] is False
    changed = done(served, "POST", "/v1/pools/etl/update", {"concurrency_limit": None, "description": "new"})
    assert (changed["concurrency_limit"], changed["description"]) == (None, "new")
    assert pool(served).concurrency_limit is None
    assert done(served, "POST", "/v1/pools/etl/delete")["name"] == "etl"
    assert served.host.prefect.pools.pools == {}


def test_changing_a_queue(served: Serving) -> None:
    place = "/v1/pools/etl/queues/a%20b"
    assert done(served, "POST", f"{place}/pause")["paused"] is True
    assert done(served, "POST", f"{place}/resume")["paused"] is False
    done(served, "POST", f"{place}/update", {"concurrency_limit": None, "priority": 9})
    assert (queue(served).concurrency_limit, queue(served).priority) == (None, 9)
    assert done(served, "POST", f"{place}/delete")["name"] == "a b"
    assert done(served, "GET", place, status=404)["detail"]


def test_creating(served: Serving) -> None:
    assert done(served, "POST", "/v1/pools", {"name": "new", "paused": True}, status=201)["paused"] is True
    assert done(served, "POST", "/v1/pools", {"name": "new", "update": True})["paused"] is False
    made = done(served, "POST", "/v1/pools/new/queues", {"name": "q", "priority": 1}, status=201)
    assert (made["name"], made["priority"]) == ("q", 1)
    assert done(served, "POST", "/v1/pools", {"name": "new"}, status=409)["type"] == "urn:runnerd:problem:refused"


def test_who_asked_for_a_change_is_logged_before_it_is_done(served: Serving) -> None:
    done(served, "POST", "/v1/pools/nope/pause", status=404)
    done(served, "POST", "/v1/pools/etl/queues/nope/update", {"priority": 2}, status=404)
    done(served, "POST", "/v1/pools", {"name": "new", "type": "nix"}, status=404)
    done(served, "POST", "/v1/pools/etl/queues", {"name": "q"}, status=201)
    done(served, "POST", "/v1/pools/etl/delete")
    assert {level for level, _, _ in served.log.lines} == {"info"}
    told = [fields for _, _, fields in served.log.lines]
    assert {(fields["uid"], fields["pid"]) for fields in told} == {(os.getuid(), os.getpid())}
    about = [{key: value for key, value in each.items() if key not in ("uid", "gid", "pid")} for each in told]
    assert about == [
        {"verb": "pause pool", "pool": "nope", "members": ["paused"]},
        {"verb": "update queue", "pool": "etl", "queue": "nope", "members": ["priority"]},
        {"verb": "create pool", "pool": "new", "type": "nix", "update": False},
        {"verb": "create queue", "pool": "etl", "queue": "q"},
        {"verb": "delete pool", "pool": "etl"},
    ]


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("", {}, "name it"),
        ("", {"name": " "}, "name it"),
        ("", {"name": 5}, "'name' must be a string"),
        ("", {"name": "x", "base_job_template": []}, "must be an object"),
        ("", {"name": "x", "concurrency_limit": -1}, "from 0 to 2147483647"),
        ("", {"name": "x", "concurrency_limit": LIMIT_MAX + 1}, "from 0 to 2147483647"),
        ("", {"name": "x", "concurrency_limit": True}, "must be a whole number"),
        ("", {"name": "x", "is_paused": True}, "'is_paused' is not known"),
        ("/etl/pause", {"all": True}, "'all' is not known"),
        ("/etl/delete", {"force": True}, "'force' is not known"),
        ("/etl/update", {}, "name what to change"),
        ("/etl/update", {"paused": True}, "'paused' is not known"),
        ("/etl/update", {"description": None}, "'description' cannot be null"),
        ("/etl/update", {"base_job_template": None, "concurrency_limit": 1}, "cannot be null"),
        ("/etl/queues", {"name": ""}, "name it"),
        ("/etl/queues", {"name": "q", "priority": 0}, "from 1 to 2147483647"),
        ("/etl/queues/a%20b/update", {"priority": None}, "'priority' cannot be null"),
        ("/etl/queues/a%20b/update", {"base_job_template": {}}, "is not known"),
    ],
)
def test_a_body_that_is_wrong_changes_nothing(served: Serving, path: str, body: object, words: str) -> None:
    assert words in done(served, "POST", f"/v1/pools{path}", body, status=422)["detail"]
    assert (served.host.prefect.asked, served.log.lines) == ([], [])


@pytest.mark.parametrize("hours", ["0", "-1", "1.5", "x", "999999999999", ""])
def test_hours_that_are_none(served: Serving, hours: str) -> None:
    assert "hours" in done(served, "GET", f"/v1/pools/etl/preview?hours={hours}", status=422)["detail"]


def test_an_api_that_is_away(served: Serving) -> None:
    served.host.prefect.down = True
    for method, path in (("GET", "/v1/pools"), ("POST", "/v1/pools/etl/pause")):
        assert "runnerctl status" in done(served, method, path, status=503)["detail"]


def test_changes_wait_for_no_run(served: Serving) -> None:
    served.call(served.host.runs.knows_its_runs.clear)
    assert done(served, "POST", "/v1/pools/etl/pause")["paused"] is True
