"""Deployments with a command: the whole of runnerd against real Prefect servers, on a host without any Prefect."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.kits.daemon import Host, eventually, serving
from tests.kits.prefect_servers import PrefectServer

pytestmark = pytest.mark.server

DEPLOYMENTS = """
deployments:
  - name: backup
    command: [/bin/sh, -c, 'echo "$1" "$PARAM_LEVEL"; cat; exit "$PARAM_CODE"', sh, "--level={{ level }}"]
    parameters: {level: 3, code: 0}
    parameter_schema: {type: object, properties: {level: {type: integer}, code: {type: integer}}}
    success_exit_codes: [0, 3]
    stdin: parameters
    schedules: [{cron: "0 2 * * *"}]
  - {name: line, flow_name: lines, shell: true, command: "printf '%s.' {{ words }} done; printf '\\\\033\\\\377'",
     parameters: {words: "it's; $(id)"}}
  - {name: flaky, command: [/bin/sh, -c, 'echo try $RUNNERD_ATTEMPT; test $RUNNERD_ATTEMPT = 3'],
     retries: 2, retry_delay: 1s}
  - {name: failing, command: ["false"], retries: 1}
  - {name: sleeping, command: [/bin/sh, -c, 'echo asleep; exec sleep 600']}
  - {name: bounded, command: [sleep, "600"], run: {runtime_max: 1s}}
  - {name: missing, command: [/none/such, x]}
  - {name: counting, command: [/bin/sh, -c, 'i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo line $i; sleep 0.02; done']}
  - {name: alone, command: [sleep, "1"], concurrency_limit: 1}
"""
NAMES = ("alone", "backup", "line", "flaky", "failing", "sleeping", "bounded", "missing", "counting")


@pytest.fixture(scope="module", params=["prefect2", "prefect3"])
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    """A runnerd that serves DEPLOYMENTS, shared by this file's tests of one major."""
    server: PrefectServer = request.getfixturevalue(request.param)
    host = Host(url=server.url, python="/none/python")  # nothing may need an interpreter
    with serving(host, DEPLOYMENTS, *NAMES) as host:
        yield host


def logs_of(host: Host, run_id: str) -> list[str]:
    """The lines that Prefect's UI shows."""
    found: list[Any] = []
    while True:
        body = {
            "logs": {"flow_run_id": {"any_": [run_id]}},
            "limit": 200,
            "offset": len(found),
            "sort": "TIMESTAMP_ASC",
        }
        page = host.api.call("POST", "/logs/filter", body)
        found += page
        if len(page) < 200:
            return [one["message"] for one in found]


def logged(host: Host, run_id: str, count: int) -> list[str]:
    """The lines once there are so many, and whatever comes with them."""
    return eventually(lambda: (found := logs_of(host, run_id)) and len(found) >= count and found, "logs", log=host.said)


def test_it_is_registered_with_its_schema(host: Host) -> None:
    found = host.api.deployment("backup", "backup")
    assert found["entrypoint"] is None
    assert found["parameters"] == {"level": 3, "code": 0}
    level = {"title": "level", "position": 0, "type": "integer"}
    assert found["parameter_openapi_schema"]["properties"]["level"] == level
    assert found["schedules"][0]["schedule"]["cron"] == "0 2 * * *"
    assert host.api.deployment("lines", "line") is not None
    shown = host.json("status", "backup")
    assert (shown["kind"], shown["entrypoint"], shown["command"].split()[0]) == ("command", None, "/bin/sh")


@pytest.mark.parametrize(("code", "state"), [(0, "COMPLETED"), (3, "COMPLETED"), (4, "FAILED")])
def test_the_exit_code_is_the_state(host: Host, code: int, state: str) -> None:
    run_id = host.run_now("backup", code=code)
    document = host.ended(run_id)
    assert (document["kind"], document["exit"]["words"], document["api_state"]) == ("command", f"exited {code}", state)
    assert host.api.history(run_id) == ["SCHEDULED", "PENDING", "RUNNING", state]
    assert host.api.run(run_id)["run_count"] == 1
    assert host.api.run(run_id)["state"]["message"] == f"exited {code}"
    lines = logged(host, run_id, 2)
    assert lines[0] == "--level=3 3"
    assert json.loads(lines[1]) == {"level": 3, "code": code}
    assert lines == host.ctl("logs", run_id).stdout.splitlines()


def test_the_server_enforces_the_schema(host: Host) -> None:
    asked = host.ctl("run", "backup", "-p", 'level="high"')
    assert asked.returncode != 0
    assert "level" in asked.stderr


def test_a_line_of_the_shell_reads_values_as_words(host: Host) -> None:
    run_id = host.run_now("line")
    assert host.ended(run_id)["api_state"] == "COMPLETED"
    assert logged(host, run_id, 1) == ["it's; $(id).done.\\x1b\\xff"]


def test_a_failure_is_retried_until_it_succeeds(host: Host) -> None:
    run_id = host.run_now("flaky")
    eventually(lambda: host.api.state(run_id) == "COMPLETED", "the third try", log=host.said)
    again = ["PENDING", "RUNNING", "SCHEDULED"]
    assert host.api.history(run_id) == ["SCHEDULED", *again, *again, "PENDING", "RUNNING", "COMPLETED"]
    assert host.api.run(run_id)["run_count"] == 3
    assert logged(host, run_id, 3) == ["try 1", "try 2", "try 3"]


def test_the_last_failure_is_final(host: Host) -> None:
    run_id = host.run_now("failing")
    eventually(lambda: host.api.state(run_id) == "FAILED", "the second try", log=host.said)
    assert host.api.run(run_id)["run_count"] == 2


def test_a_cancel_in_prefect_ends_it(host: Host) -> None:
    run_id = host.run_now("sleeping")
    host.running(run_id)
    host.api.cancel(run_id)
    document = host.ended(run_id)
    assert document["api_state"] == "CANCELLED"
    assert document["exit"]["words"] == "cancelled; killed by SIGTERM"
    assert logged(host, run_id, 1) == ["asleep"]


def test_a_signal_of_others_is_a_crash(host: Host) -> None:
    run_id = host.run_now("sleeping")
    os.kill(host.running(run_id)["pid"], signal.SIGKILL)
    assert host.ended(run_id)["api_state"] == "CRASHED"
    assert host.api.run(run_id)["state"]["message"] == "killed by SIGKILL"


def test_a_timeout_has_its_name(host: Host) -> None:
    run_id = host.run_now("bounded")
    assert host.ended(run_id)["api_state_name"] == "TimedOut"
    assert host.api.state(run_id) == "FAILED"


def test_a_command_that_does_not_exist_says_so(host: Host) -> None:
    run_id = host.run_now("missing")
    document = host.ended(run_id)
    assert document["exit"]["words"] == "could not start: no such command /none/such (203/EXEC)"
    assert host.api.state(run_id) == "CRASHED"


def test_a_restart_loses_neither_the_exit_nor_a_line(host: Host) -> None:
    run_id = host.run_now("counting")
    host.running(run_id)
    logged(host, run_id, 1)
    for _ in range(3):
        host.kill()
        host.start()
    assert host.ended(run_id)["api_state"] == "COMPLETED"
    assert host.api.run(run_id)["run_count"] == 1
    assert logged(host, run_id, 400) == [f"line {number}" for number in range(1, 401)]


def test_it_begins_when_it_is_due(host: Host) -> None:
    due = datetime.now(UTC) + timedelta(seconds=15)
    made = host.api.deployment("backup", "backup")["id"]
    state = {"type": "SCHEDULED", "state_details": {"scheduled_time": due.isoformat()}}
    run_id = host.api.call("POST", f"/deployments/{made}/create_flow_run", {"state": state})["id"]
    document = host.ended(run_id)
    started = datetime.fromisoformat(document["started_at"])
    assert started >= due - timedelta(milliseconds=1), "never before"
    assert document["api_state"] == "COMPLETED"


def test_a_limit_of_the_server_is_taken_and_given_back(host: Host) -> None:
    run_ids = [host.run_now("alone") for _ in range(3)]
    for run_id in run_ids:
        eventually(lambda run_id=run_id: host.api.state(run_id) == "COMPLETED", "each run in turn", log=host.said)


def test_the_doctor_asks_for_no_interpreter(host: Host) -> None:
    checks = host.json("doctor")["checks"]
    assert not [one for one in checks if one["name"].startswith("python ")]
