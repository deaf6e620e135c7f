"""The requests of a run, recorded and made again."""

from __future__ import annotations

from tests.bench.floor import requests_of
from tests.kits.fault_proxy import DAEMON, FLOW, Call

RUN, TRANSITION = "11111111-0000-0000-0000-000000000001", "22222222-0000-0000-0000-000000000002"
OTHER_RUN, OTHER_TRANSITION = "33333333-0000-0000-0000-000000000003", "44444444-0000-0000-0000-000000000004"


def a_call(path: str, body: object = None, *, who: str = DAEMON, method: str = "POST", status: int = 200) -> Call:
    return Call(1, who, method, path, body, status)


def test_what_a_run_causes_is_made_again_for_another_run() -> None:
    claim = {"state": {"type": "PENDING", "state_details": {"transition_id": TRANSITION}}}
    calls = [
        a_call("/api/deployments/get_scheduled_flow_runs", {"limit": 10}),
        a_call(f"/api/flow_runs/{RUN}/set_state", claim),
        a_call("/api/csrf-token", who=FLOW, method="GET"),
        a_call(f"/api/flow_runs/{RUN}/set_state", {"state": {"type": "RUNNING"}}, who=FLOW),
        a_call("/api/logs/", [{"flow_run_id": RUN}], who=FLOW),
        a_call("/api/events/in", who=FLOW, method="GET", status=101),
        a_call("/api/flow_runs/filter", {"flow_runs": {"id": {"any_": [RUN]}}}),
        a_call(f"/api/flow_runs/{RUN}", method="GET", status=0),
    ]
    found = requests_of(calls, RUN, "/api")
    assert [one.path for one in found] == [
        "/flow_runs/RUN-ID/set_state", "/csrf-token", "/flow_runs/RUN-ID/set_state", "/logs/", "/flow_runs/filter",
    ]  # fmt: skip
    assert [one.is_running for one in found] == [False, False, True, False, False]
    again = [one.for_run(OTHER_RUN, OTHER_TRANSITION) for one in found]
    assert RUN not in str(again) and TRANSITION not in str(again)
    assert again[0] == (
        "POST",
        f"/flow_runs/{OTHER_RUN}/set_state",
        {"state": {"type": "PENDING", "state_details": {"transition_id": OTHER_TRANSITION}}},
    )
    assert again[1] == ("GET", "/csrf-token", None)
