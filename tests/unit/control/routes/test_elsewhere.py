"""Runs that only Prefect has, asked for by their full ids over the real socket."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from runnerd.control.contract import Peer, Refused
from runnerd.control.http.exchange import Request
from runnerd.control.http.guard import Guard, Level
from runnerd.control.http.problem import HttpProblem
from runnerd.control.routes.resolve import UNKNOWN_MAX
from runnerd.control.routes.runs import RunRoutes
from runnerd.core.settings import ControlSettings
from tests.kits.fakes.fake_host import FakeHost
from tests.kits.fakes.raw_http import ask
from tests.kits.fakes.run_elsewhere import run_elsewhere
from tests.kits.fakes.serving import ListLog, Serving

RUN = "aaaa1111-0000-4000-8000-000000000001"
OTHER = "aaaa2222-0000-4000-8000-000000000002"
KEPT = f"cannot cancel run far ({RUN}): it is not ours"


def put(served: Serving, **changes: Any) -> None:
    served.host.runs.elsewhere[RUN] = run_elsewhere(RUN, **changes)


def refusal(served: Serving, method: str, path: str, body: object = None) -> tuple[int, str]:
    status, problem = ask(served, method, path, body)
    assert isinstance(problem, dict)
    return status, str(problem["detail"])


def test_it_is_shown(served: Serving) -> None:
    put(served)
    for ref in (RUN, RUN.upper()):
        status, run = ask(served, "GET", f"/v1/runs/{ref}")
        assert isinstance(run, dict)
        assert (status, run["here"], run["waiting"]) == (200, False, "work pool etl is paused")


def test_prefect_is_asked_about_full_ids_that_are_unknown_here_only(served: Serving) -> None:
    served.call(served.host.runs.put, OTHER)
    for ref, status in ((OTHER, 200), (OTHER.upper(), 200), ("aaaa3", 404), ("far", 404), (RUN.replace("-", ""), 404)):
        assert ask(served, "GET", f"/v1/runs/{ref}")[0] == status
    assert served.host.runs.sought == []
    assert refusal(served, "GET", f"/v1/runs/{RUN}") == (404, f"there is no run '{RUN}', on this host or in Prefect")
    assert served.host.runs.sought == [RUN]


def test_a_list_of_ids_costs_one_look_each_and_has_a_bound(served: Serving) -> None:
    ids = [str(uuid.UUID(int=number)) for number in range(UNKNOWN_MAX + 1)]
    assert refusal(served, "POST", "/v1/cancel", {"runs": [RUN] * 900})[0] == 404
    assert served.host.runs.sought == [RUN]
    assert refusal(served, "POST", "/v1/cancel", {"runs": ids}) == (
        422,
        "cannot look up the runs: 101 of these runs are not on this host, of which 100 may be given at once",
    )
    assert served.host.runs.sought == [RUN]


def test_a_prefect_that_does_not_answer_is_named(served: Serving) -> None:
    served.host.runs.unread = Refused(status=503, detail="Prefect sleeps")
    for method, path, body in (
        ("GET", f"/v1/runs/{RUN}", None),
        ("GET", f"/v1/runs/{RUN}/logs", None),
        ("POST", f"/v1/runs/{RUN}/cancel", {}),
        ("POST", "/v1/cancel", {"runs": [RUN]}),
    ):
        assert refusal(served, method, path, body) == (503, "Prefect sleeps")
    assert served.host.asked == []


def test_it_has_no_output_here(served: Serving) -> None:
    put(served)
    words = f"run far ({RUN}) has not run on this host: it is Scheduled in Prefect, and waits: work pool etl is paused"
    assert refusal(served, "GET", f"/v1/runs/{RUN}/logs") == (404, words)
    put(served, waiting=None, api_state="RUNNING", api_state_name="Running")
    words = f"run far ({RUN}) has not run on this host: it is Running in Prefect"
    assert refusal(served, "GET", f"/v1/runs/{RUN}/logs?follow=1") == (404, words)


def test_it_is_cancelled(served: Serving) -> None:
    put(served)
    served.call(served.host.runs.put, OTHER)
    status, answer = ask(served, "POST", "/v1/cancel", {"runs": [OTHER, RUN, RUN.upper()]})
    assert status == 202
    assert isinstance(answer, dict)
    assert [(run["id"], run["phase"]) for run in answer["runs"]] == [(OTHER, "stopping"), (RUN, "done")]
    assert served.host.asked == [("cancel", {"runs": [OTHER, RUN], "now": False})]


def test_one_that_is_not_ours_is_not_and_nothing_that_was_named_beside_it(served: Serving) -> None:
    put(served, kept="it is not ours")
    served.call(served.host.runs.put, OTHER)
    assert refusal(served, "POST", "/v1/cancel", {"runs": [OTHER, RUN]}) == (409, KEPT)
    assert refusal(served, "POST", f"/v1/runs/{RUN}/cancel") == (409, KEPT)
    assert served.host.asked == []


@pytest.mark.parametrize("pool", ["etl", None])
async def test_one_that_a_pool_offers_to_every_host_takes_an_admin(tmp_path: Path, pool: str | None) -> None:
    host = FakeHost(outputs=tmp_path)
    host.runs.elsewhere[RUN] = run_elsewhere(RUN, pool=pool)
    guard = Guard(control=lambda: ControlSettings(admins=("ops",)), own_uid=1, find_level=lambda *_: Level.OPERATOR)
    runs = RunRoutes(host=host, log=ListLog(), guard=guard)
    peer = Peer(pid=7, uid=4711, gid=4711)
    body = json.dumps({"runs": [RUN]}).encode()
    request = Request(method="POST", path=(), query={}, body=body, peer=peer)
    if pool is None:
        await runs.cancel_runs(request)
        return
    with pytest.raises(HttpProblem, match=f"cancel run {RUN}, which work pool etl still offers") as refused:
        await runs.cancel_runs(request)
    assert (refused.value.status, host.asked) == (403, [])
