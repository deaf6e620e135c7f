"""The hooks of a flow run once for how its run ended, in its own interpreter, on both majors: whoever ended it."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kits.daemon import Host, eventually, serving
from tests.kits.prefect_servers import PrefectServer

DEPLOYMENTS = """
deployments:
  - {name: hooked, entrypoint: "hook_flows.py:hooked", run: {stop_timeout: 5s}}
  - {name: bounded, entrypoint: "hook_flows.py:hooked", run: {runtime_max: 8s}}
  - {name: leaves, entrypoint: "hook_flows.py:leaves"}
  - {name: called, entrypoint: "hook_flows.py:called"}
  - {name: retries, entrypoint: "hook_flows.py:retries"}
  - {name: pauses, entrypoint: "hook_flows.py:pauses"}
  - {name: finishes, entrypoint: "hook_flows.py:finishes"}
  - {name: kills-itself, entrypoint: "hook_flows.py:kills_itself", run: {hook_timeout: 25s}}
"""
NAMES = ("hooked", "bounded", "leaves", "called", "retries", "pauses", "finishes", "kills-itself")


@pytest.fixture(scope="module", params=["prefect2", "prefect3"])
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    server: PrefectServer = request.getfixturevalue(request.param)
    host = Host(url=server.url, python=server.python)
    shutil.copy(Path(__file__).with_name("hook_flows.py"), host.config)
    marks = host.root / "marks"
    marks.touch()
    environment = f"{{PREFECT_HOME: '{host.root}/prefect-home', MARKS: '{marks}', MINE: 'yes'}}"
    run = f"{{python: '{server.python}', environment: {environment}}}"
    host.write_main(f"api: {{url: '{server.url}', poll_interval: 1s}}\nrun: {run}\n")
    with serving(host, DEPLOYMENTS, *NAMES) as host:
        yield host


def marks(host: Host, run_id: str) -> list[str]:
    """What the hooks of this run wrote, in order."""
    return [line for line in (host.root / "marks").read_text().splitlines() if run_id in line]


def began(host: Host, deployment: str, **parameters: object) -> str:
    """A run whose code has begun."""
    (host.root / "marks").write_text("")
    run_id = host.run_now(deployment, **parameters)
    eventually(lambda: "began" in (host.root / "marks").read_text(), f"the flow to begin:\n{host.said()}")
    return run_id


def expected(hook: str, run_id: str, state: str) -> str:
    return f"{hook} {run_id} {state} {os.getuid()} yes"


def test_cancelled_in_prefect(host: Host) -> None:
    run_id = began(host, "hooked")
    host.api.cancel(run_id)
    document = host.ended(run_id)
    assert document["api_state"] == "CANCELLED"
    assert marks(host, run_id) == [expected("on_cancellation", run_id, "CANCELLED")]
    assert "CRASHED" not in host.api.history(run_id), "a child that was told why it ends says nothing of a crash"
    assert host.api.history(run_id)[-2:] == ["CANCELLING", "CANCELLED"]


def test_cancelled_here(host: Host) -> None:
    run_id = began(host, "hooked")
    assert host.ctl("cancel", run_id, "--wait").returncode == 0
    assert marks(host, run_id) == [expected("on_cancellation", run_id, "CANCELLED")]
    assert host.api.history(run_id)[-3:] == ["RUNNING", "CANCELLING", "CANCELLED"]
    assert "on_cancellation: 1 hooks were run, 0 failed" in host.ctl("logs", run_id).stdout


@pytest.mark.parametrize("now", [True, False])
def test_a_cancelled_flow_that_had_to_be_killed(host: Host, now: bool) -> None:
    run_id = began(host, "hooked", stubborn=True)
    assert host.ctl("cancel", run_id, "--wait", *(["--now"] if now else [])).returncode == 0
    assert host.document(run_id)["exit"]["words"] == "cancelled; killed by SIGKILL"
    assert marks(host, run_id) == [expected("on_cancellation", run_id, "CANCELLED")]


def test_killed_by_somebody(host: Host) -> None:
    """One of its hooks raises: the others run all the same, and it is logged."""
    run_id = began(host, "hooked")
    os.kill(host.document(run_id)["pid"], signal.SIGKILL)
    assert host.ended(run_id)["api_state"] == "CRASHED"
    wanted = [expected(hook, run_id, "CRASHED") for hook in ("on_crashed", "on_crashed_async")]
    assert marks(host, run_id) == wanted
    assert "a hook that is broken" in host.ctl("logs", run_id).stdout


def test_crashed_by_its_own_report(host: Host) -> None:
    """The flow's process says so itself; whether its engine ran the hooks depends on the Prefect it has."""
    run_id = host.run_now("leaves")
    assert host.ended(run_id)["api_state"] == "CRASHED"
    wanted = [expected(hook, run_id, "CRASHED") for hook in ("on_crashed", "on_crashed_async")]
    assert marks(host, run_id) == wanted


@pytest.mark.parametrize("state", ["CANCELLED", "CRASHED"])
def test_hooks_are_called_by_keyword(host: Host, state: str) -> None:
    run_id = began(host, "called")
    if state == "CANCELLED":
        host.ctl("cancel", run_id, "--wait")
    else:
        os.kill(host.document(run_id)["pid"], signal.SIGKILL)
        host.ended(run_id)
    names = ("keyword_only", "other_order", "partial", "takes_some")
    assert marks(host, run_id) == [expected(name, run_id, state) for name in names]


@pytest.mark.parametrize(("deployment", "waits"), [("retries", "AwaitingRetry"), ("pauses", "Paused")])
def test_killed_while_it_waits_in_its_process(host: Host, deployment: str, waits: str) -> None:
    """Nothing else can go on with it, so it must not wait for ever; a resume afterwards changes nothing."""
    run_id = host.run_now(deployment)
    eventually(lambda: host.api.run(run_id)["state"]["name"] == waits, f"the run to be {waits}:\n{host.said()}")
    os.kill(host.document(run_id)["pid"], signal.SIGKILL)
    document = host.ended(run_id)
    assert (document["api_state"], document["exit"]["words"]) == ("CRASHED", "killed by SIGKILL")
    wanted = [expected(hook, run_id, "CRASHED") for hook in ("on_crashed", "on_crashed_async")]
    assert marks(host, run_id) == wanted
    host.api.call("POST", f"/flow_runs/{run_id}/resume", {})
    assert host.api.state(run_id) == "CRASHED"


def test_over_its_time(host: Host) -> None:
    run_id = host.run_now("bounded")
    assert host.ended(run_id)["api_state"] == "FAILED"
    assert marks(host, run_id) == [expected("on_failure", run_id, "FAILED")]


def test_finished(host: Host) -> None:
    """Its own process runs these, as ever."""
    run_id = host.run_now("finishes")
    assert host.ended(run_id)["api_state"] == "COMPLETED"
    assert marks(host, run_id) == [expected("on_completion", run_id, "COMPLETED")]


def test_hooks_have_a_time_limit_and_the_daemon_may_die_meanwhile(host: Host) -> None:
    run_id = host.run_now("kills-itself")
    eventually(lambda: marks(host, run_id), f"the hook to begin:\n{host.said()}")
    host.kill()
    host.start()
    host.ended(run_id)
    assert marks(host, run_id) == [expected("endless", run_id, "CRASHED")]
    assert "took longer than hook_timeout 25s" in host.said()
    assert host.api.state(run_id) == "CRASHED"
