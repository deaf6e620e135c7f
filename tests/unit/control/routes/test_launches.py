"""Plans and retries over the real socket, and who may retry what."""

from __future__ import annotations

from pathlib import Path

import pytest

from runnerd.control.contract import Peer
from runnerd.control.http.exchange import Request
from runnerd.control.http.guard import Guard, Level
from runnerd.control.http.problem import HttpProblem
from runnerd.control.routes.launches import LaunchRoutes
from runnerd.core.settings import ControlSettings
from tests.kits.fakes.fake_host import FakeHost
from tests.kits.fakes.raw_http import ask
from tests.kits.fakes.serving import ListLog, Serving

RUN = "aaaa1111-0000-4000-8000-000000000001"
OTHER = "aaaa2222-0000-4000-8000-000000000002"


def refusal(served: Serving, method: str, path: str, body: object = None) -> tuple[int, str]:
    status, problem = ask(served, method, path, body)
    assert isinstance(problem, dict)
    return status, str(problem["detail"])


def test_a_run_is_retried_by_its_name(served: Serving) -> None:
    served.call(served.host.runs.put, RUN, name="fast-owl", phase="done")
    for ref in ("fast-owl", RUN, RUN[:8]):
        status, run = ask(served, "POST", f"/v1/runs/{ref}/retry")
        assert isinstance(run, dict)
        assert (status, run["id"], run["phase"]) == (202, RUN, None)
    assert served.host.asked == [("retry", RUN)] * 3


def test_a_run_that_only_prefect_has_is_named_by_its_full_id(served: Serving) -> None:
    assert ask(served, "POST", f"/v1/runs/{RUN.upper()}/retry")[0] == 202
    assert served.host.asked == [("retry", RUN)]
    status, words = refusal(served, "POST", "/v1/runs/slow-owl/retry")
    assert (status, "a run of another host is named by its full id" in words) == (404, True)


def test_a_retry_takes_no_members(served: Serving) -> None:
    served.call(served.host.runs.put, RUN, phase="done")
    assert ask(served, "POST", f"/v1/runs/{RUN}/retry", {"force": True})[0] == 422
    assert served.host.asked == []


@pytest.mark.parametrize(
    ("known", "pool", "level", "permitted"),
    [
        (True, None, Level.OPERATOR, True),
        (True, "etl", Level.OPERATOR, False),
        (False, None, Level.OPERATOR, False),
        (True, "etl", Level.ADMIN, True),
        (False, None, Level.ADMIN, True),
    ],
)
async def test_a_run_that_other_hosts_may_be_offered_takes_an_admin(
    tmp_path: Path, known: bool, pool: str | None, level: Level, permitted: bool
) -> None:
    host = FakeHost(outputs=tmp_path)
    if known:
        host.runs.put(RUN, phase="done", pool=pool)
    control = ControlSettings(admins=("ops",))
    guard = Guard(control=lambda: control, own_uid=1, find_level=lambda *_: level)
    routes = LaunchRoutes(host=host, log=ListLog(), guard=guard)
    request = Request(method="POST", path=(), query={}, body=b"", peer=Peer(pid=7, uid=4711, gid=4711))
    if permitted:
        await routes.retry_run(request, RUN)
    else:
        with pytest.raises(HttpProblem, match="which other hosts may be offered too") as refused:
            await routes.retry_run(request, RUN)
        assert refused.value.status == 403
    assert host.asked == ([("retry", RUN)] if permitted else [])


def test_plans(served: Serving) -> None:
    served.call(served.host.deployments.put, "d-1", "nightly")
    served.call(served.host.runs.put, RUN, name="fast-owl")
    served.host.launches.plans = {"d-1": {"kind": "deployment"}, "far/daily": {"kind": "far"}, RUN: {"kind": "run"}}
    for path, kind in (
        ("deployments/nightly", "deployment"),
        ("deployments/far%2Fdaily", "far"),
        ("runs/fast-owl", "run"),
        (f"runs/{RUN}", "run"),
    ):
        assert ask(served, "GET", f"/v1/{path}/plan") == (200, {"kind": kind})
    for path in ("deployments/none", f"deployments/{OTHER}", "runs/none", f"runs/{OTHER}"):
        assert ask(served, "GET", f"/v1/{path}/plan")[0] == 404
    assert ask(served, "GET", "/v1/deployments/nightly/plan?hours=1")[0] == 422


def test_the_plan_of_a_deployment_whose_files_are_wrong(served: Serving) -> None:
    served.call(served.host.deployments.put, None, "nightly", state="invalid", problem="20.yaml:4:7: unknown key")
    status, words = refusal(served, "GET", "/v1/deployments/nightly/plan")
    assert (status, words) == (409, "cannot plan nightly: its files are wrong: 20.yaml:4:7: unknown key")


def test_the_entrypoint_of_an_execution_is_logged(served: Serving) -> None:
    body = {"flow_run_id": RUN, "entrypoint": "/srv/flows.py:flow"}
    assert ask(served, "POST", "/v1/execute", body)[0] == 202
    assert served.host.asked == [("execute /srv/flows.py:flow", RUN)]
    assert ask(served, "POST", "/v1/execute", {**body, "entrypoint": "a\nb"})[0] == 422
    assert ask(served, "POST", "/v1/execute", {**body, "user": "root"})[0] == 422, "nobody chooses a user"
