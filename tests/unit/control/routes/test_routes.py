"""The control API's routes, asked over the real socket: who is told what, and what is passed on to the host."""

import asyncio
import os
from pathlib import Path

import pytest

from runnerd.control.contract import DEPLOYMENT_FIELDS, PROBLEM_FIELDS, RUN_FIELDS, STATUS_FIELDS, Peer, Refused
from runnerd.control.http.exchange import Request
from runnerd.control.http.guard import Guard, Level
from runnerd.control.http.problem import HttpProblem
from runnerd.control.http.router import Access
from runnerd.control.routes.runs import RunRoutes
from runnerd.control.routes.table import build_routes
from runnerd.core.settings import ControlSettings
from tests.kits.fakes.fake_documents import ended
from tests.kits.fakes.fake_host import FakeHost, FakeRuns
from tests.kits.fakes.raw_http import ask, raw
from tests.kits.fakes.serving import ListLog, Serving

RUN_A = "aaaa1111-0000-4000-8000-000000000001"
RUN_B = "aaaa2222-0000-4000-8000-000000000002"
# What DESIGN promises to scripts, word for word.
PROMISED_STATUS = "name version api draining limits runs deployments problems"
PROMISED_RUN = (
    "id name deployment flow phase intent pid pgid user start created_at started_at ended_at"
    " api_state exit memory_bytes cpu_seconds"
)
PROMISED_DEPLOYMENT = "id name flow file line state problem next_run_at running limit"


def two_runs(served: Serving) -> None:
    served.call(served.host.runs.put, RUN_A)
    served.call(served.host.runs.put, RUN_B)


def detail(answer: tuple[int, object]) -> str:
    document = answer[1]
    assert isinstance(document, dict)
    return str(document["detail"])


# --- reading -------------------------------------------------------------------------------------------------


def test_the_promised_keys_are_in_every_document(served: Serving) -> None:
    two_runs(served)
    served.call(served.host.deployments.put, "d-1", "nightly")
    assert set(PROMISED_STATUS.split()) <= STATUS_FIELDS
    assert set(PROMISED_RUN.split()) <= RUN_FIELDS
    assert set(PROMISED_DEPLOYMENT.split()) == DEPLOYMENT_FIELDS
    _, status = ask(served, "GET", "/v1/status")
    assert isinstance(status, dict)
    assert set(status) == STATUS_FIELDS
    assert set(status["api"]) == {"url", "state", "maintenance", "since", "detail", "requests_per_minute", "stream"}
    assert set(status["limits"]["runs"]) == {"used", "max"}
    assert set(status["runs"][0]) == RUN_FIELDS
    assert set(status["deployments"][0]) == DEPLOYMENT_FIELDS
    assert frozenset({"message", "file", "line", "column", "deployment"}) == PROBLEM_FIELDS


def test_runs_are_filtered_by_phase_state_deployment_and_history(served: Serving) -> None:
    two_runs(served)
    served.call(served.host.runs.put, "bbbb", deployment="gone", **ended(api_state_name="Skipped"))
    served.call(served.host.deployments.put, "d-1", "nightly")

    def ids(query: str) -> list[str]:
        status, runs = ask(served, "GET", f"/v1/runs?{query}")
        assert status == 200
        assert isinstance(runs, list)
        return [run["id"] for run in runs]

    assert ids("") == [RUN_A, RUN_B]
    assert ids("history=1") == [RUN_A, RUN_B, "bbbb"]
    assert ids("history=1&state=DONE") == ["bbbb"]
    assert ids("history=1&state=skipped") == ["bbbb"]
    assert ids("state=waiting") == []
    served.call(served.host.runs.put, RUN_B, waiting="limits.runs 1 is reached")
    assert ids("state=Waiting") == [RUN_B]
    assert ids("state=waiting&deployment=nightly") == [RUN_B]
    assert ids("state=running") == [RUN_A, RUN_B]
    assert ids("history=1&deployment=nightly") == [RUN_A, RUN_B]
    assert ids("deployment=etl%2Fnightly") == [RUN_A, RUN_B]
    assert ids("deployment=d-1") == [RUN_A, RUN_B]
    assert ids("history=1&deployment=gone") == ["bbbb"]  # its deployment is no more, its runs are
    assert ask(served, "GET", "/v1/runs?deployment=nihgtly")[0] == 404
    assert ask(served, "GET", "/v1/runs?history=perhaps")[0] == 422


def test_one_run_by_id_prefix_and_name(served: Serving) -> None:
    two_runs(served)
    served.call(served.host.runs.put, RUN_B, name="a name/with ünicode")
    for ref in (RUN_A, "aaaa1", "run-aaaa"):
        status, run = ask(served, "GET", f"/v1/runs/{ref}")
        assert status == 200
        assert isinstance(run, dict)
        assert run["id"] == RUN_A
    status, run = ask(served, "GET", "/v1/runs/a%20name%2Fwith%20%C3%BCnicode")
    assert isinstance(run, dict)
    assert run["id"] == RUN_B


def test_an_ambiguous_prefix_names_the_candidates(served: Serving) -> None:
    two_runs(served)
    status, problem = ask(served, "GET", "/v1/runs/aaaa")
    assert status == 409
    assert isinstance(problem, dict)
    assert [c["id"] for c in problem["candidates"]] == [RUN_A, RUN_B]
    assert RUN_A in problem["detail"]
    assert RUN_B in problem["detail"]


def test_a_deployment_by_id_name_and_flow_slash_name(served: Serving) -> None:
    served.call(served.host.deployments.put, "d-1", "nightly")
    served.call(served.host.deployments.put, "d-2", "hourly", flow="etl")
    served.call(served.host.deployments.put, "d-3", "hourly", flow="web")
    for ref, wanted in (("d-1", "d-1"), ("nightly", "d-1"), ("web%2Fhourly", "d-3")):
        status, its = ask(served, "GET", f"/v1/deployments/{ref}")
        assert status == 200
        assert isinstance(its, dict)
        assert its["id"] == wanted
    status, problem = ask(served, "GET", "/v1/deployments/hourly")
    assert status == 409
    assert isinstance(problem, dict)
    assert problem["detail"].endswith("d-2 (etl/hourly), d-3 (web/hourly); name one by flow/name or its id")
    assert ask(served, "GET", "/v1/deployments/none")[0] == 404
    assert ask(served, "GET", "/v1/deployments/web/hourly")[0] == 404  # an unencoded slash is another path


def test_health_is_a_status_and_a_document(served: Serving) -> None:
    status, document = ask(served, "GET", "/v1/health")
    assert status == 200
    served.host.well = False
    status, document = ask(served, "GET", "/v1/health")
    assert status == 503
    assert isinstance(document, dict)
    assert document["ok"] is False


def test_config_and_metrics(served: Serving) -> None:
    assert ask(served, "GET", "/v1/config")[1] == {"name": "build-07", "limits": {"runs": 10}}
    _, headers, body = raw(served, b"GET /v1/metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert headers["content-type"].startswith("text/plain; version=0.0.4")
    assert b"runnerd_runs 1" in body


# --- changing ------------------------------------------------------------------------------------------------


def test_a_change_is_passed_on_and_logged_with_who_asked(served: Serving) -> None:
    two_runs(served)
    status, run = ask(served, "POST", f"/v1/runs/{RUN_A}/cancel", {"now": True})
    assert status == 202
    assert isinstance(run, dict)
    assert (run["phase"], run["intent"]) == ("killing", "cancel")
    assert served.host.asked == [("cancel", {"runs": [RUN_A], "now": True})]
    me = Peer(pid=os.getpid(), uid=os.getuid(), gid=os.getgid(), groups=frozenset(os.getgroups()))
    assert served.host.peers == [me]
    logged = {"verb": "cancel", "uid": me.uid, "gid": me.gid, "pid": me.pid, "runs": [RUN_A], "now": True}
    assert served.log.lines == [("info", "control", logged)]


def test_cancel_of_several_is_all_or_nothing(served: Serving) -> None:
    two_runs(served)
    assert ask(served, "POST", "/v1/cancel", {"runs": [RUN_A, "zzzz"]})[0] == 404
    assert served.host.asked == []
    status, answer = ask(served, "POST", "/v1/cancel", {"runs": [RUN_A, "aaaa2", RUN_A]})
    assert status == 202
    assert served.host.asked == [("cancel", {"runs": [RUN_A, RUN_B], "now": False})]
    assert isinstance(answer, dict)
    assert [run["phase"] for run in answer["runs"]] == ["stopping", "stopping"]


def test_cancel_of_a_deployment_and_of_all(served: Serving) -> None:
    two_runs(served)
    served.call(served.host.runs.put, RUN_B, deployment="hourly")
    served.call(served.host.runs.put, "over", **ended())
    served.call(served.host.deployments.put, "d-1", "nightly")
    assert ask(served, "POST", "/v1/cancel", {"deployment": "nightly"})[0] == 202
    assert ask(served, "POST", "/v1/cancel", {"all": True})[0] == 202
    assert [about["runs"] for _, about in served.host.asked] == [[RUN_A], [RUN_A, RUN_B]]


def test_cancel_of_a_deployment_that_has_left_the_files(served: Serving) -> None:
    two_runs(served)
    served.call(served.host.runs.put, RUN_B, deployment="gone")
    for ref in ("gone", "etl/gone"):
        assert ask(served, "POST", "/v1/cancel", {"deployment": ref})[0] == 202
    assert [about["runs"] for _, about in served.host.asked] == [[RUN_B], [RUN_B]]
    served.call(served.host.runs.put, RUN_A, deployment="gone", flow="other")
    status, problem = ask(served, "POST", "/v1/cancel", {"deployment": "gone"})
    assert isinstance(problem, dict)
    cause = "several deployments are named 'gone'; use one of etl/gone, other/gone"
    assert (status, problem["detail"]) == (409, cause)
    assert ask(served, "POST", "/v1/cancel", {"deployment": "unknown"})[0] == 404
    assert len(served.host.asked) == 2


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"all": False},
        {"runs": []},
        {"runs": [RUN_A], "all": True},
        {"runs": RUN_A},
        {"runs": [1]},
        {"all": "yes"},
        {"all": 1},
        {"deployement": "nightly"},
        ["all"],
    ],
)
def test_a_cancel_that_is_not_clear_cancels_nothing(served: Serving, body: object) -> None:
    two_runs(served)
    assert ask(served, "POST", "/v1/cancel", body)[0] == 422
    assert served.host.asked == []


def test_nothing_to_cancel_is_no_error_and_asks_nobody(served: Serving) -> None:
    assert ask(served, "POST", "/v1/cancel", {"all": True}) == (202, {"runs": []})
    assert served.host.asked == []


def test_a_run_is_created_with_what_was_asked_for(served: Serving) -> None:
    served.call(served.host.deployments.put, "d-1", "nightly")
    body = {"parameters": {"secret": "hush"}, "name": "now", "tags": ["a"]}
    status, run = ask(served, "POST", "/v1/deployments/etl%2Fnightly/run", body)
    assert status == 201
    assert isinstance(run, dict)
    assert (run["name"], run["phase"]) == ("now", None)
    assert served.host.asked == [("run", {"deployment": "d-1", **body})]
    assert "hush" not in repr(served.log.lines)
    assert ask(served, "POST", "/v1/deployments/nightly/run", {"parameters": []})[0] == 422
    assert ask(served, "POST", "/v1/deployments/nightly/run", {"tags": [1]})[0] == 422
    assert ask(served, "POST", "/v1/deployments/nowhere/run")[0] == 404


@pytest.mark.parametrize("status", [403, 404, 409, 422, 503])
def test_what_the_host_refuses_is_a_problem_document(served: Serving, status: int) -> None:
    served.call(served.host.deployments.put, "d-1", "nightly")
    served.host.refusal = Refused(status=status, detail="because of the test")  # type: ignore[arg-type]
    for path, body in (
        ("/v1/deployments/nightly/run", None),
        ("/v1/deployments/nightly/pause", None),
        ("/v1/execute", {"flow_run_id": RUN_A}),
    ):
        answer = ask(served, "POST", path, body)
        assert (answer[0], detail(answer)) == (status, "because of the test")


def test_pause_resume_execute_reload_drain_undrain(served: Serving) -> None:
    served.call(served.host.deployments.put, "d-1", "nightly")
    assert ask(served, "POST", "/v1/deployments/nightly/pause")[0] == 200
    assert ask(served, "POST", "/v1/deployments/nightly/resume", {})[0] == 200
    assert ask(served, "POST", "/v1/execute", {"flow_run_id": RUN_A})[0] == 202
    assert ask(served, "POST", "/v1/execute", {"flow_run_id": RUN_A, "again": True})[0] == 202
    assert ask(served, "POST", "/v1/execute", {"flow_run_id": RUN_A, "again": 1})[0] == 422
    assert ask(served, "POST", "/v1/execute", {})[0] == 422
    assert ask(served, "POST", "/v1/reload")[0] == 200
    assert ask(served, "POST", "/v1/reload", {"inspect": True})[0] == 200
    assert ask(served, "POST", "/v1/reload", {"inspect": 1})[0] == 422
    _, document = ask(served, "POST", "/v1/drain", {"timeout_s": 5, "reason": "kernel"})
    assert isinstance(document, dict)
    assert document["draining"] is True
    assert document["drain"]["reason"] == "kernel"
    _, document = ask(served, "POST", "/v1/undrain")
    assert isinstance(document, dict)
    assert document["draining"] is False
    assert served.host.asked == [
        ("pause", "d-1"),
        ("resume", "d-1"),
        ("execute", RUN_A),
        ("execute --again", RUN_A),
        ("reload", None),
        ("reload --inspect", None),
        ("drain", {"timeout_s": 5.0, "reason": "kernel"}),
        ("undrain", None),
    ]


@pytest.mark.parametrize("timeout_s", [True, "5s", -1, 1e300])
def test_a_drain_timeout_is_a_number_of_seconds(served: Serving, timeout_s: object) -> None:
    assert ask(served, "POST", "/v1/drain", {"timeout_s": timeout_s})[0] == 422
    assert served.host.asked == []


class OfferedAgain(FakeRuns):
    """A claim is refused while usage is measured, so that the run is its work pool's again."""

    async def measure(self) -> None:
        self.put(RUN_A, phase=None, pool="etl")


async def test_a_run_that_its_pool_offers_again_meanwhile_is_for_admins(tmp_path: Path) -> None:
    host = FakeHost(outputs=tmp_path)
    host.runs = OfferedAgain(host, outputs=tmp_path)
    host.runs.put(RUN_A, phase="claiming", pool="etl")
    control = ControlSettings(admins=("ops",))
    guard = Guard(control=lambda: control, own_uid=1, find_level=lambda *_: Level.OPERATOR)
    runs = RunRoutes(host=host, log=ListLog(), guard=guard)
    peer = Peer(pid=7, uid=4711, gid=4711)
    for handler, refs, body in ((runs.cancel_run, [RUN_A], b""), (runs.cancel_runs, [], b'{"all": true}')):
        host.runs.put(RUN_A, phase="claiming")
        request = Request(method="POST", path=(), query={}, body=body, peer=peer)
        with pytest.raises(HttpProblem, match="which work pool etl still offers to every host") as refused:
            await handler(request, *refs)
        assert (refused.value.status, host.asked) == (403, [])


async def test_nothing_is_asked_of_a_host_that_does_not_know_its_runs_yet(tmp_path: Path) -> None:
    """Not even "all of none": that is refused after a while, so that the one who asks asks again."""
    host = FakeHost(outputs=tmp_path)
    host.runs.knows_its_runs.clear()
    table = build_routes(host=host, log=ListLog())
    routes = {route.path: route for route in table if route.access is Access.ADOPTED}
    assert len(routes) == 11
    for route in routes.values():
        request = Request(method="POST", path=(), query={}, body=b'{"all": true}', peer=Peer(pid=1, uid=0, gid=0))
        with pytest.raises(HttpProblem) as refused:
            await route.handler(request, *route.path.count("*") * ["x"])
        assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "1"})
    waiting = asyncio.create_task(routes["/v1/cancel"].handler(request))
    await asyncio.sleep(1)
    host.runs.put(RUN_A)
    host.runs.knows_its_runs.set()
    await waiting
    assert host.asked == [("cancel", {"runs": [RUN_A], "now": False})]
