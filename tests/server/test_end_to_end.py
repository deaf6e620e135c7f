"""A drop-in becomes finished flow runs: the whole of runnerd against real Prefect servers, one host a major."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kits.daemon import Host, alive, eventually, serving
from tests.kits.prefect_servers import PrefectServer

DEPLOYMENTS = """
deployments:
  - name: greet
    entrypoint: flows.py:greet
    description: Greets.
    version: "2.1"
    parameters: {name: runnerd}
    tags: [polite, test]
    enforce_parameter_schema: true
    schedules:
      - {cron: "0 2 * * *", timezone: Europe/Berlin}
      - {interval: 3600, anchor_date: "2024-01-01T00:30:00+00:00", active: false}
      - {rrule: "FREQ=DAILY;BYHOUR=9"}
  - {name: fail, entrypoint: "flows.py:fail"}
  - {name: leave, entrypoint: "flows.py:leave"}
  - {name: sleep, entrypoint: "flows.py:sleep", run: {limit: 1}}
  - {name: bounded, entrypoint: "flows.py:sleep", run: {runtime_max: 8s}}
  - {name: family, entrypoint: "flows.py:family"}
  - {name: stubborn, entrypoint: "flows.py:stubborn", run: {stop_timeout: 2s}}
"""
NAMES = ("greet", "fail", "leave", "sleep", "bounded", "family", "stubborn")


@pytest.fixture(scope="module", params=["prefect2", "prefect3"])
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    """A runnerd that serves DEPLOYMENTS, shared by this file's tests of one major."""
    server: PrefectServer = request.getfixturevalue(request.param)
    host = Host(url=server.url, python=server.python)
    with serving(host, DEPLOYMENTS, *NAMES) as host:
        yield host


def test_a_deployment_is_registered_as_the_file_has_it(host: Host) -> None:
    found = host.api.deployment("greet", "greet")
    assert found["description"] == "Greets."
    assert found["version"] == "2.1"
    assert found["parameters"] == {"name": "runnerd"}
    assert set(found["tags"]) == {"polite", "test"}
    assert found["enforce_parameter_schema"] is True
    assert set(found["parameter_openapi_schema"]["properties"]) == {"name", "times"}
    assert found["paused"] is False
    by_kind = {next(k for k in ("cron", "interval", "rrule") if k in s["schedule"]): s for s in found["schedules"]}
    assert {kind: one["active"] for kind, one in by_kind.items()} == {"cron": True, "interval": False, "rrule": True}
    assert by_kind["cron"]["schedule"]["cron"] == "0 2 * * *"
    assert by_kind["cron"]["schedule"]["timezone"] == "Europe/Berlin"
    assert by_kind["rrule"]["schedule"]["rrule"].endswith("FREQ=DAILY;BYHOUR=9")
    interval = by_kind["interval"]["schedule"]
    assert interval["interval"] == 3600.0
    assert interval["anchor_date"].startswith("2024-01-01T00:30:00")


def test_a_run_on_request_is_watched_to_its_good_end(host: Host) -> None:
    asked = host.ctl("run", "greet", "-p", "times=2", "--name", "watched", "--watch")
    assert asked.returncode == 0, asked.stderr
    assert "hello runnerdhello runnerd" in asked.stdout + asked.stderr
    document = host.document("watched")
    assert document["phase"] == "done"
    assert document["api_state"] == "COMPLETED"
    assert document["exit"] == {"code": 0, "signal": None, "oom": False, "words": "exited 0"}
    assert document["cpu_seconds"] > 0
    assert "hello runnerd" in host.ctl("logs", "watched").stdout
    assert host.api.state(document["id"]) == "COMPLETED"


def test_parameters_that_the_schema_refuses_make_no_run(host: Host) -> None:
    asked = host.ctl("run", "greet", "-p", 'times="many"')
    assert asked.returncode == 1
    assert "times" in asked.stderr or "many" in asked.stderr


def test_a_flow_that_raises_is_failed_and_watch_says_so(host: Host) -> None:
    asked = host.ctl("run", "fail", "--name", "raised", "--watch")
    assert asked.returncode == 1
    assert host.document("raised")["api_state"] == "FAILED"


def test_a_process_that_vanishes_is_crashed_with_its_exit_in_words(host: Host) -> None:
    run_id = host.run_now("leave", code=7)
    document = host.ended(run_id)
    assert document["exit"]["words"] == "exited 7"
    state = host.api.run(run_id)["state"]
    assert (state["type"], state["message"]) == ("CRASHED", "exited 7")


def test_a_killed_process_is_crashed_with_its_signal(host: Host) -> None:
    run_id = host.run_now("sleep")
    os.kill(host.running(run_id)["pid"], signal.SIGKILL)
    assert host.ended(run_id)["exit"]["words"] == "killed by SIGKILL"
    assert host.api.run(run_id)["state"]["message"] == "killed by SIGKILL"


def test_runtime_max_ends_a_run_as_timed_out(host: Host) -> None:
    run_id = host.run_now("bounded")
    document = host.ended(run_id)
    assert document["intent"] == "timeout"
    assert "runtime_max 8s" in document["exit"]["words"]
    state = host.api.run(run_id)["state"]
    assert (state["type"], state["name"]) == ("FAILED", "TimedOut")


def test_cancelling_in_prefect_ends_the_whole_family(host: Host, tmp_path: Path) -> None:
    mark = tmp_path / "family"
    run_id = host.run_now("family", mark=str(mark))
    eventually(mark.exists, "the family to be there")
    pids = [int(pid) for pid in eventually(mark.read_text, "its pids").split()]
    host.api.cancel(run_id)
    document = host.ended(run_id)
    assert document["intent"] == "cancel"
    assert host.api.state(run_id) == "CANCELLED"
    assert not [pid for pid in pids if alive(pid)]


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_cancelling_at_a_time_that_utc_does_not_have(host: Host, at: str) -> None:
    """Both majors take such a state from anybody who may cancel a run."""
    run_id = host.run_now("sleep")
    host.running(run_id)
    state = {"type": "CANCELLING", "name": "Cancelling", "state_details": {"scheduled_time": at}}
    assert host.api.call("POST", f"/flow_runs/{run_id}/set_state", {"state": state})["status"] == "ACCEPT"
    assert host.ended(run_id)["intent"] == "cancel"
    assert host.api.state(run_id) == "CANCELLED"


def test_a_stubborn_flow_is_killed_after_its_grace(host: Host, tmp_path: Path) -> None:
    mark = tmp_path / "stubborn"
    run_id = host.run_now("stubborn", mark=str(mark))
    pid = int(eventually(lambda: mark.exists() and mark.read_text(), "the stubborn one"))
    asked = host.ctl("cancel", run_id, "--wait")
    assert asked.returncode == 0, asked.stderr
    assert not alive(pid)
    document = host.document(run_id)
    assert document["exit"]["words"] == "cancelled; killed by SIGKILL"
    assert host.api.state(run_id) == "CANCELLED"
    again = host.ctl("cancel", run_id)
    assert again.returncode == 0
    assert "already Cancelled" in again.stdout


def test_a_full_deployment_holds_up_nobody_else(host: Host) -> None:
    first = host.run_now("sleep")
    host.running(first)
    second = host.run_now("sleep")
    third = host.run_now("greet")
    assert host.ended(third)["api_state"] == "COMPLETED"
    waiting = host.document(second)
    assert waiting["phase"] is None
    assert waiting["waiting"] == "the deployment's limit 1 is reached"
    assert host.api.state(second) == "SCHEDULED"
    host.ctl("cancel", first, "--wait")
    host.running(second)
    assert host.ctl("cancel", "--deployment", "sleep", "--wait").returncode == 0
    assert host.api.state(second) == "CANCELLED"


def test_a_schedule_of_seconds_makes_finished_runs(host: Host) -> None:
    drop_in = host.drop_in(
        "20-often.yaml",
        "deployments: [{name: often, entrypoint: 'flows.py:greet', schedules: [{interval: 5s}], run: {limit: 1}}]",
    )
    try:
        assert host.ctl("reload").returncode == 0
        host.registered("often")
        deployment = host.json("status", "often")
        done = eventually(lambda: host.api.runs_of(deployment["id"], "COMPLETED"), "a scheduled run to complete")
        assert done[0]["auto_scheduled"] is True
    finally:
        drop_in.unlink()
        host.ctl("reload")


def test_a_reload_takes_drop_ins_and_touches_no_run(host: Host) -> None:
    run_id = host.run_now("sleep")
    pid = host.running(run_id)["pid"]
    drop_in = host.drop_in("30-new.yaml", "deployments: [{name: new, entrypoint: 'flows.py:greet', tags: [one]}]")
    host.signal(signal.SIGHUP)
    host.registered("new")
    drop_in.write_text("deployments: [{name: new, entrypoint: 'flows.py:greet', tags: [two]}]")
    changed = host.json("reload")
    assert (changed["ok"], changed["changed"]) == (True, ["greet/new"])
    assert host.api.deployment("greet", "new")["tags"] == ["two"]
    drop_in.unlink()
    assert host.json("reload")["removed"] == ["greet/new"]
    eventually(lambda: host.api.deployment("greet", "new")["paused"], "the dropped deployment to be paused")
    assert alive(pid)
    assert host.document(run_id)["phase"] == "running"
    host.ctl("cancel", run_id, "--wait")


def test_a_flow_that_cannot_be_imported_concerns_only_itself(host: Host) -> None:
    (host.config / "broken.py").write_text("import nothing_like_this\n")
    drop_in = host.drop_in("40-broken.yaml", "deployments: [{name: broken, entrypoint: 'broken.py:flow'}]")
    try:
        asked = host.ctl("reload")
        assert asked.returncode == 1
        assert "No module named 'nothing_like_this'" in asked.stdout + asked.stderr
        assert "Traceback" not in asked.stdout + asked.stderr
        one = host.json("status", "broken")
        assert one["state"] == "unregistered"
        assert "nothing_like_this" in one["problem"]
        assert host.ended(host.run_now("greet"))["api_state"] == "COMPLETED"
    finally:
        drop_in.unlink()
        host.ctl("reload")


def test_prefixes_names_and_unknown_runs(host: Host) -> None:
    run_id = host.run_now("greet")
    document = host.ended(run_id)
    assert host.document(run_id[:30])["id"] == run_id
    assert host.document(document["name"])["id"] == run_id
    unknown = host.ctl("status", "no-such-thing")
    assert unknown.returncode == 4
    assert len(unknown.stderr.splitlines()) == 1


def test_the_log_has_no_traceback(host: Host) -> None:
    assert "Traceback" not in host.said()
