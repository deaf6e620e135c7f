"""From nothing to a run, and runs that are planned, retried and executed, against real servers of both majors."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kits.daemon import ANSWER_S, FLOWS_AS_ROOT, Host, eventually
from tests.kits.prefect_servers import PrefectServer

FLOWS = '''
from pathlib import Path

from prefect import flow


@flow(log_prints=True)
def greet(name: str = "nobody"):
    print(f"hello {name} in {Path.cwd()}")


@flow
def second_time(mark: str):
    """Fails until its mark is there."""
    if not Path(mark).exists():
        Path(mark).touch()
        raise ValueError("the first time")


@flow(persist_result=True)
def count(mark: str) -> int:
    with open(mark, "a") as file:
        file.write("x")
    return len(Path(mark).read_text())
'''


@pytest.fixture(scope="module", params=["prefect2", "prefect3"])
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    """A runnerd whose files were written by runnerctl init and add alone."""
    server: PrefectServer = request.getfixturevalue(request.param)
    host = Host(url=server.url, python=server.python)
    try:
        (host.config / "runnerd.yaml").unlink()
        project = host.root / "etl"
        project.mkdir()
        (project / "flows.py").write_text(FLOWS)
        (project / ".venv").symlink_to(Path(server.python).parent.parent)
        made = alone(host, "init", "--config", str(host.config), VIRTUAL_ENV=str(Path(server.python).parent.parent))
        assert made["written"], made
        quicken(host)
        host.start()
        yield host
    finally:
        host.close()


def alone(host: Host, *words: str, **environ: str) -> Any:
    """The answer of runnerctl in JSON with the API's URL in its environment."""
    argv = [sys.executable, "-m", "runnerd.cli", "--socket", str(host.root / "run" / "control.sock"), *words, "--json"]
    environ = {**host.environ, **FLOWS_AS_ROOT, "PREFECT_API_URL": host.api.url, **environ}
    done = subprocess.run(argv, capture_output=True, text=True, env=environ, timeout=ANSWER_S)
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def quicken(host: Host) -> None:
    """Have the host poll often, and its flows write into their own home."""
    main = host.config / "runnerd.yaml"
    content = yaml.safe_load(main.read_text())
    content["api"]["poll_interval"] = "1s"
    content["run"]["environment"] = {"PREFECT_HOME": f"{host.root}/prefect-home"}
    main.write_text(yaml.safe_dump(content))


def add(host: Host, function: str, *words: str) -> Any:
    added = host.json("add", f"{host.root}/etl/flows.py:{function}", *words)
    assert added["written"], added
    host.registered(added["name"])
    return added


def test_from_a_file_to_a_run(host: Host) -> None:
    added = add(host, "greet", "--cron", "0 2 * * *", "--timezone", "Europe/Berlin")
    assert added["python"] == f"{host.root}/etl/.venv/bin/python"
    plan = host.json("plan", "greet")
    assert (plan["problem"], plan["held_by"], plan["served"]) == (None, [], True)
    assert plan["directory"] == f"{host.root}/etl"
    assert {"PREFECT_API_URL", "PREFECT__FLOW_RUN_ID", "PREFECT_HOME"} <= {its["name"] for its in plan["environment"]}
    asked = host.ctl("run", "greet", "--watch")
    assert asked.returncode == 0, asked.stderr
    assert f"hello nobody in {host.root}/etl" in asked.stdout + asked.stderr
    following = eventually(lambda: host.json("plan", "greet")["next"], "the scheduler's runs", ANSWER_S)
    assert following == sorted(following)
    assert "Held up by" not in host.ctl("plan", "greet").stdout
    again = host.ctl("add", f"{host.root}/etl/flows.py:greet")
    assert (again.returncode, "a deployment of this name is at" in again.stderr) == (1, True)


def test_a_failed_run_is_retried_with_its_id(host: Host, tmp_path: Path) -> None:
    add(host, "second_time")
    run_id = host.run_now("second_time", mark=str(tmp_path / "mark"))
    assert host.ended(run_id)["api_state"] == "FAILED"
    assert host.json("plan", run_id)["held_by"] == ["the run is Failed already; runnerctl retry schedules it again"]
    assert host.json("retry", run_id)["id"] == run_id
    eventually(lambda: host.api.state(run_id) == "COMPLETED", "the second attempt", log=host.said)
    assert host.document(run_id)["attempt"] == 2
    history = host.api.history(run_id)
    assert history.count("RUNNING") == 2 and history.count("SCHEDULED") == 2


def test_a_completed_run_with_a_result_is_retried(host: Host, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    add(host, "count")
    run_id = host.run_now("count", mark=str(mark))
    assert host.ended(run_id)["api_state"] == "COMPLETED"
    asked = host.ctl("retry", run_id)
    assert asked.returncode == 0, asked.stderr
    eventually(lambda: len(mark.read_text()) == 2, "the second attempt", log=host.said)
    eventually(lambda: host.api.state(run_id) == "COMPLETED", "its end", log=host.said)


def test_a_cancelled_run_is_retried(host: Host) -> None:
    deployment = host.api.deployment("greet", "greet")
    at = {"type": "SCHEDULED", "state_details": {"scheduled_time": "2099-01-01T00:00:00+00:00"}}
    made = host.api.call("POST", f"/deployments/{deployment['id']}/create_flow_run", {"state": at})
    host.api.cancel(made["id"])
    assert host.api.state(made["id"]) == "CANCELLED"
    asked = host.ctl("retry", made["id"])
    assert asked.returncode == 0, asked.stderr
    eventually(lambda: host.api.state(made["id"]) == "COMPLETED", "its end", log=host.said)


def test_a_run_that_has_not_ended_is_not_retried(host: Host) -> None:
    deployment = host.api.deployment("greet", "greet")
    at = {"type": "SCHEDULED", "state_details": {"scheduled_time": "2099-01-01T00:00:00+00:00"}}
    made = host.api.call("POST", f"/deployments/{deployment['id']}/create_flow_run", {"state": at})
    asked = host.ctl("retry", made["id"])
    assert (asked.returncode, "only one that is Completed" in asked.stderr) == (1, True)
    assert host.api.state(made["id"]) == "SCHEDULED"


# --- runs of others -----------------------------------------------------------------------------------------------


def flow_of_others(host: Host) -> str:
    return str(host.api.call("POST", "/flows/", {"name": "greet"})["id"])


def test_a_run_of_a_deployment_that_is_served_nowhere_is_executed(host: Host) -> None:
    """Its code is fetched as its pull steps say, by Prefect's own engine."""
    body = {
        "name": "theirs",
        "flow_id": flow_of_others(host),
        "entrypoint": "flows.py:greet",
        "pull_steps": [
            {"prefect.deployments.steps.set_working_directory": {"directory": f"{host.root}/etl"}},
        ],
        "parameters": {"name": "stranger"},
    }
    deployment = host.api.call("POST", "/deployments/", body)
    run = host.api.call("POST", f"/deployments/{deployment['id']}/create_flow_run", {})
    plan = host.json("plan", run["id"])
    assert (plan["served"], plan["scratch"], plan["deployment"]) == (False, True, "theirs")
    asked = host.ctl("execute", run["id"], "--watch")
    assert asked.returncode == 0, asked.stderr + host.said()
    assert f"hello stranger in {host.root}/etl" in asked.stdout + asked.stderr
    assert host.document(run["id"])["deployment"] == "theirs"
    refused = host.ctl("execute", run["id"])
    assert (refused.returncode, "the run is Completed" in refused.stderr) == (1, True)


def test_a_run_without_a_deployment_is_executed_with_code_that_is_named(host: Host) -> None:
    state = {"type": "SCHEDULED", "name": "Scheduled"}
    body = {"flow_id": flow_of_others(host), "parameters": {"name": "bare"}, "state": state}
    run = host.api.call("POST", "/flow_runs/", body)
    refused = host.ctl("execute", run["id"])
    assert (refused.returncode, "--entrypoint FILE.py:FLOW" in refused.stderr) == (1, True)
    asked = host.ctl("execute", run["id"], "--entrypoint", f"{host.root}/etl/flows.py:greet", "--watch")
    assert asked.returncode == 0, asked.stderr + host.said()
    assert f"hello bare in {host.root}/etl" in asked.stdout + asked.stderr
    assert host.api.state(run["id"]) == "COMPLETED"
    document = host.document(run["id"])
    assert (document["deployment"], document["entrypoint"]) == (None, f"{host.root}/etl/flows.py:greet")


def test_an_executed_run_is_cancelled_in_prefect(host: Host) -> None:
    code = host.root / "etl" / "slow.py"
    code.write_text("import time\nfrom prefect import flow\n\n@flow\ndef slow():\n    time.sleep(600)\n")
    flow_id = host.api.call("POST", "/flows/", {"name": "slow"})["id"]
    body = {"flow_id": flow_id, "state": {"type": "SCHEDULED", "name": "Scheduled"}}
    run_id = host.api.call("POST", "/flow_runs/", body)["id"]
    assert host.ctl("execute", run_id, "--entrypoint", f"{code}:slow").returncode == 0
    host.running(run_id)
    host.api.cancel(run_id)
    assert host.ended(run_id)["intent"] == "cancel"
    assert host.api.state(run_id) == "CANCELLED"
