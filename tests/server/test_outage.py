"""The API away, slow, refusing or talking nonsense: a whole host behind a proxy that breaks what passes through it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pytest

from tests.kits.daemon import Host, alive, eventually
from tests.kits.fault_proxy import (
    DAEMON,
    Fault,
    FaultProxy,
    answer,
    drop,
    garbage,
    half,
    hang,
    login,
    lost,
    maintenance,
    slow,
)
from tests.kits.prefect_servers import PrefectServer

START_RATE, RUNS = 2, 4
# Which runs are claimed and told is what matters, so most of them do not pay for the start of Prefect: this
# "interpreter" sleeps, and is killed.
INTERPRETER = """#!/bin/sh
case "$*" in *prefect.engine) exec sleep 600;; esac
exec {python} "$@"
"""
DROP_IN = """
deployments:
  - {name: outage-real, entrypoint: "flows.py:sleep", parameters: {seconds: 600}, run: {python: %s}}
  - {name: outage-idle, entrypoint: "flows.py:greet"}
"""
NAMES = {"outage-real": "sleep", "outage-idle": "greet"}


@contextmanager
def behind_a_proxy(server: PrefectServer, folder: str) -> Iterator[tuple[Host, FaultProxy]]:
    interpreter = os.path.join(folder, "python")
    with open(interpreter, "w", encoding="utf-8") as file:
        file.write(INTERPRETER.format(python=server.python))
    os.chmod(interpreter, 0o755)
    with FaultProxy(upstream=server.url) as proxy:
        host = Host(url=proxy.url, python=interpreter)
        try:
            host.drop_in("10-test.yaml", DROP_IN % server.python)
            # Cold: the interpreter sleeps in the place of a run's program, which no fork executes.
            host.drop_in("50-patience.yaml", "{api: {request_timeout: 2s}, run: {start: cold}}")
            host.drop_in("60-limits.yaml", f"{{limits: {{start_rate: {START_RATE}/s, runs: {RUNS}}}}}")
            host.start()
            host.registered(*NAMES)
            host.api.url = server.url  # the tests themselves ask the server, whatever the proxy does
            yield host, proxy
        finally:
            proxy.clear()
            host.close()
            for name, flow in NAMES.items():
                host.api.call("DELETE", f"/deployments/{host.api.deployment(flow, name)['id']}")


@pytest.fixture(scope="module", params=["prefect2", "prefect3"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Host, FaultProxy]]:
    server: PrefectServer = request.getfixturevalue(request.param)
    with behind_a_proxy(server, str(tmp_path_factory.mktemp("interpreter"))) as made:
        yield made


@pytest.fixture(autouse=True)
def nothing_runs(pair: tuple[Host, FaultProxy]) -> Iterator[None]:
    """Each test begins with a well API and ends with no run."""
    host, proxy = pair
    proxy.forget_calls()
    host.log.write_bytes(b"")
    yield
    proxy.clear()
    recovered(host)
    for run in waiting(host):
        host.api.call("DELETE", f"/flow_runs/{run['id']}")
    host.ctl("cancel", "--all", "--now")
    eventually(lambda: not host.json("runs"), "the runs to end")


def create(host: Host, count: int = 1, name: str = "outage-idle") -> list[str]:
    """Runs that somebody asks the server for, due at once."""
    path = f"/deployments/{host.api.deployment(NAMES[name], name)['id']}/create_flow_run"
    return [host.api.call("POST", path, {"state": {"type": "SCHEDULED"}})["id"] for _ in range(count)]


def waiting(host: Host) -> Any:
    return host.api.runs_of(host.api.deployment("greet", "outage-idle")["id"], "SCHEDULED")


def started(host: Host, run_id: str) -> int:
    """Its pid, once the daemon has started it."""

    def look() -> object:
        return next((run["pid"] for run in host.json("runs") if run["id"] == run_id and run["pid"]), None)

    return int(str(eventually(look, f"{run_id} to be started", log=host.said)))


def recovered(host: Host) -> None:
    """Wait until the API is well; `undrain` makes the daemon ask at once."""

    def look() -> bool:
        host.ctl("undrain")
        return bool(host.json("status")["api"]["state"] == "ok")

    eventually(look, "the API to be well again", log=host.said)


def restart(host: Host) -> None:
    """Let go of what the daemon made of earlier outages."""
    host.signal(signal.SIGTERM)
    assert host.wait() == 0
    host.log.write_bytes(b"")
    host.start()


def api_lines(host: Host) -> list[str]:
    return [line for line in host.said().splitlines() if " api state=" in line]


on_prefect_3 = pytest.mark.parametrize("pair", ["prefect3"], indirect=True)


# --- whatever it answers ----------------------------------------------------------------------------------------


FAULTS: list[tuple[Fault, str, str]] = [
    (answer(401), "degraded", "401: "),
    (answer(403), "degraded", "403: "),
    (answer(404), "degraded", "HTTP 404"),
    (answer(408), "degraded", "HTTP 408"),
    (answer(409), "degraded", "HTTP 409"),
    (answer(422), "degraded", "HTTP 422"),
    (answer(425), "degraded", "HTTP 425"),
    (answer(429, retry_after="1"), "degraded", "HTTP 429"),
    (answer(500), "degraded", "HTTP 500"),
    (answer(503), "degraded", "HTTP 503"),
    (garbage(), "degraded", "is not JSON"),
    (login(), "degraded", "is not JSON"),
    (drop(), "unreachable", "the connection broke"),
    (lost(), "unreachable", "the connection broke"),
    (half(), "unreachable", "the connection broke"),
    (hang(), "unreachable", "no answer in time"),
    (slow(5), "unreachable", "no answer in time"),
]


@on_prefect_3
def test_whatever_it_answers_is_said_and_touches_no_flow(pair: tuple[Host, FaultProxy]) -> None:
    host, proxy = pair
    (run_id,) = create(host)
    pid = started(host, run_id)
    assert host.process is not None
    for fault, state, detail in FAULTS:
        with proxy.broken(fault, who=DAEMON):

            def in_words(state: str = state, detail: str = detail) -> bool:
                host.ctl("undrain")
                api = host.json("status")["api"]
                return api["state"] == state and detail in api["detail"]

            eventually(in_words, f"{state}, {detail}; last: {host.json('status')['api']}")
            health = host.ctl("health")
            assert (health.returncode, detail in health.stdout) == (1, True), (fault, health.stdout)
            assert host.process.poll() is None
        recovered(host)
    assert alive(pid)
    assert host.document(run_id)["phase"] == "running"
    assert "Traceback" not in host.said()
    assert len(api_lines(host)) < len(FAULTS), "said once, and not so often when it comes and goes"


# --- away -------------------------------------------------------------------------------------------------------


@on_prefect_3
def test_a_run_whose_process_says_how_it_ended_does_not_wait_for_the_api(pair: tuple[Host, FaultProxy]) -> None:
    """Prefect 3.9's process sends the spawner a receipt; what it says is what the API has."""
    host, proxy = pair
    path = f"/deployments/{host.api.deployment('sleep', 'outage-real')['id']}/create_flow_run"
    body = {"state": {"type": "SCHEDULED"}, "parameters": {"seconds": 15}}
    run_id = host.api.call("POST", path, body)["id"]
    host.running(run_id)
    with proxy.broken(drop(), who=DAEMON):
        document = host.ended(run_id)
        assert host.json("status")["api"]["state"] == "unreachable"
    assert (document["api_state"], document["api_state_name"]) == ("COMPLETED", "Completed")
    assert document["exit"]["words"] == "exited 0"
    assert host.api.state(run_id) == "COMPLETED"
    assert "the run has ended as its process says" in host.said()


AWAY_S = 8.0


@pytest.mark.parametrize(
    ("pair", "fault"),
    # Hosts are made once, in this order.
    [("prefect3", hang()), ("prefect3", answer(503)), ("prefect3", maintenance()), ("prefect2", None)],
    ids=["hang", "503", "maintenance", "refused"],
    indirect=["pair"],
)
def test_what_happens_meanwhile_is_told_afterwards(pair: tuple[Host, FaultProxy], fault: Fault | None) -> None:
    host, proxy = pair
    restart(host)
    crashed, cancelled, untouched = create(host, 3)
    pids = {run_id: started(host, run_id) for run_id in (crashed, cancelled, untouched)}
    if fault is None:
        proxy.refuse()
    else:
        proxy.add(fault, who=DAEMON)
    eventually(lambda: host.json("status")["api"]["state"] != "ok", "the outage to be noticed")
    began = time.monotonic()
    late = create(host)[0]
    os.kill(pids[crashed], signal.SIGKILL)
    assert host.ctl("cancel", cancelled).returncode == 0
    eventually(lambda: not alive(pids[cancelled]), "the cancel to work without the API")
    phases = {crashed: "reporting", cancelled: "reporting", untouched: "running"}
    eventually(lambda: {run["id"]: run["phase"] for run in host.json("runs")} == phases, str(phases), log=host.said)
    assert host.ctl("run", "outage-idle").returncode == 1
    eventually(lambda: time.monotonic() - began > AWAY_S, "some time to pass")
    said = [line.split("state=")[1].split()[0] for line in api_lines(host)]
    assert said in (["ok", s] for s in ("degraded", "unreachable", "maintenance")), "once, and not at every poll"
    proxy.forget_calls()
    proxy.clear()
    eventually(lambda: host.api.state(crashed) == "CRASHED", "the crash to be told", log=host.said)
    eventually(lambda: host.api.state(cancelled) == "CANCELLED", "the cancel to be told")
    assert host.api.run(crashed)["state"]["message"] == "killed by SIGKILL"
    assert host.api.history(crashed).count("CRASHED") == 1
    assert host.api.history(cancelled).count("CANCELLED") == 1
    assert host.json("status", untouched)["pid"] == pids[untouched]
    started(host, late)
    assert [line.split("state=")[1].split()[0] for line in api_lines(host)] == [*said, "ok"]


@on_prefect_3
def test_no_storm_when_it_is_back(pair: tuple[Host, FaultProxy]) -> None:
    host, proxy = pair
    proxy.refuse()
    eventually(lambda: host.json("status")["api"]["state"] == "unreachable", "the outage to be noticed")
    ids = create(host, 3 * RUNS)
    began = time.monotonic()
    eventually(lambda: time.monotonic() - began > AWAY_S, "some time to pass")
    proxy.forget_calls()
    proxy.clear()
    back = time.monotonic()
    eventually(lambda: len(host.json("runs")) == RUNS, "the slots to be taken")
    runs = host.json("runs")
    assert {run["id"] for run in runs} <= set(ids)
    begins = sorted(datetime.fromisoformat(run["created_at"]) for run in runs)
    for first, then in zip(begins, begins[START_RATE:], strict=False):
        assert (then - first).total_seconds() > 0.98 / START_RATE - 0.01, begins
    took_s = time.monotonic() - back
    asked = [call for call in proxy.calls if call.who == DAEMON]
    polls = sum(call.path.endswith("/get_scheduled_flow_runs") for call in asked)
    assert polls <= 3 + took_s / 0.9, "one at once, then the interval"
    assert len(asked) <= 20 + 8 * RUNS + 4 * took_s, [call.path for call in asked]


# --- one run only -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [404, 409, 422])
def test_a_claim_that_is_refused_concerns_that_run_only(pair: tuple[Host, FaultProxy], status: int) -> None:
    host, proxy = pair
    assert host.ctl("drain").returncode == 0
    refused, *others = create(host, 3)
    with proxy.broken(answer(status), who=DAEMON, method="POST", path=f"/flow_runs/{refused}/set_state") as rule:
        assert host.ctl("undrain").returncode == 0
        for run_id in others:
            started(host, run_id)
        eventually(lambda: rule.struck, "the claim to be refused")
        assert host.api.state(refused) == "SCHEDULED"
    assert "Traceback" not in host.said()


@pytest.mark.parametrize("status", [404, 409, 422])
def test_a_report_that_is_refused_concerns_that_run_only(pair: tuple[Host, FaultProxy], status: int) -> None:
    host, proxy = pair
    refused, other = create(host, 2)
    pids = [started(host, run_id) for run_id in (refused, other)]
    proxy.add(answer(status), who=DAEMON, method="POST", path=f"/flow_runs/{refused}/set_state", count=2)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: host.api.state(other) == "CRASHED", "the other to be told")
    eventually(lambda: host.api.state(refused) == "CRASHED", "this one to be told")
    assert host.ended(refused)["exit"]["words"] == "killed by SIGKILL"
    assert host.api.history(refused).count("CRASHED") == 1
    assert "Traceback" not in host.said()


def test_a_claim_whose_answer_is_lost_is_ours_all_the_same(pair: tuple[Host, FaultProxy]) -> None:
    host, proxy = pair
    proxy.add(half(), who=DAEMON, method="POST", path="/set_state", count=1)
    proxy.add(lost(), who=DAEMON, method="POST", path="/set_state", count=1)
    (run_id,) = create(host)
    started(host, run_id)
    assert host.api.history(run_id).count("PENDING") == 1


# --- a flow of flesh and blood ----------------------------------------------------------------------------------


def test_a_flow_that_ends_while_the_api_is_away_from_the_host(pair: tuple[Host, FaultProxy]) -> None:
    """What the flow itself has told is not overwritten by what the host tells later."""
    host, proxy = pair
    run_id = host.run_now("outage-real", seconds=3)
    eventually(lambda: host.api.state(run_id) == "RUNNING", "it to run", log=host.said)
    proxy.add(hang(), who=DAEMON)
    eventually(lambda: host.document(run_id)["phase"] == "reporting", "it to end", log=host.said)
    proxy.clear()
    assert host.ended(run_id)["api_state"] == "COMPLETED"
    assert host.api.history(run_id)[-1] == "COMPLETED"
