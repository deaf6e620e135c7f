"""One host with much of one name: which deployments are whose, what follows the code, and what stays as it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kits.daemon import Host, eventually
from tests.kits.prefect_servers import PrefectServer

pytestmark = pytest.mark.server

PROJECT = """
from prefect import flow

@flow(name="team {team} report")
def main(tag: str = "-"):
    pass
"""
TWINS = """
from datetime import datetime
from prefect import flow

@flow
def first_twin():
    pass

@flow
def second_twin():
    pass

@flow
def greet():
    pass

@flow(log_prints=True)
def takes_any(a: int, *, b: int = 2, **rest):
    print("got", a, b, rest)

@flow(log_prints=True)
def takes_a_date(at: datetime = None):
    print("at", at.isoformat())
"""
JOB = """
import os
from prefect import flow
from limits import Region

@flow(name=f"{os.environ.get('STAGE', 'no stage')} model")
def model(region: Region = "eu"):
    pass
"""
LIMITS = "from typing import Literal\nRegion = Literal[{}]\n"
# One interpreter start inspects all of them: they share directory and environment.
RUN = '{{working_directory: "{root}", environment_file: "{root}/env"}}'
DROP_IN = f"""
deployments:
  - {{{{name: twin, entrypoint: "twins.py:first_twin", run: {RUN}}}}}
  - {{{{name: twin, entrypoint: "twins.py:second_twin", run: {RUN}}}}}
  - {{{{name: any, entrypoint: "twins.py:takes_any", run: {RUN}}}}}
  - {{{{name: date, entrypoint: "twins.py:takes_a_date", run: {RUN},
     parameters: {{{{at: 2025-08-27t10:30:00 -05:00}}}}}}}}
  - {{{{name: model, entrypoint: "job.py:model", run: {RUN}}}}}
"""
OF_TEAM = """
pull:
- prefect.deployments.steps.set_working_directory: {{directory: "{root}/team-{team}"}}
deployments:
- {{name: prod, entrypoint: "flow.py:main", schedules: [{{cron: "0 5 * * *"}}]}}
"""
TOGGLED = f"""
deployments:
  - name: toggled
    entrypoint: twins.py:greet
    run: {RUN}
    description: {{words}}
    {{more}}
    schedules:
      - {{{{cron: "0 2 * * *"}}}}
      - {{{{cron: "0 3 * * *"}}}}
"""
FOREIGN = {"schedule": {"cron": "30 9 * * *", "timezone": "UTC"}, "active": True}


@pytest.fixture(scope="module", params=["prefect2", "prefect3"])
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    server: PrefectServer = request.getfixturevalue(request.param)
    one = Host(url=server.url, python=server.python)
    root = one.root / "code"
    for team in "ab":
        (root / f"team-{team}").mkdir(parents=True)
        (root / f"team-{team}" / "flow.py").write_text(PROJECT.format(team=team))
        one.drop_in(f"30-team-{team}.yaml", OF_TEAM.format(root=root, team=team))
    (root / "twins.py").write_text(TWINS)
    (root / "job.py").write_text(JOB)
    (root / "limits.py").write_text(LIMITS.format('"eu"'))
    (root / "env").write_text("STAGE=test\n")
    one.drop_in("10-code.yaml", DROP_IN.format(root=root))
    one.drop_in("20-toggled.yaml", toggled(one, "first", "is_schedule_active: false"))
    try:
        one.start()
        known = {"ready", "paused"}
        eventually(lambda: {its["state"] for its in one.json("deployments")} == known, "the first registration", 300.0)
        yield one
    finally:
        one.close()


def toggled(host: Host, words: str, more: str) -> str:
    return TOGGLED.format(root=host.root / "code", words=words, more=more)


def states(host: Host, name: str) -> dict[str, str]:
    found = [one for one in host.json("deployments") if one["name"] == name]
    return {str(one["flow"]): one["state"] for one in found}


def regions(host: Host, flow: str = "test model") -> list[str]:
    deployment = host.api.deployment(flow.replace(" ", "%20"), "model")
    if deployment is None:
        return []
    found: Any = deployment["parameter_openapi_schema"]["properties"]["region"]
    return found.get("enum") or [found["const"]]


def test_projects_and_flows_of_one_name_live_side_by_side(host: Host) -> None:
    eventually(lambda: states(host, "prod") == {"team a report": "ready", "team b report": "ready"}, "both teams")
    assert states(host, "twin") == {"first-twin": "ready", "second-twin": "ready"}
    for team in "ab":
        stored = host.api.deployment(f"team%20{team}%20report", "prod")
        assert (stored["paused"], Path(stored["path"]).name) == (False, f"team-{team}")
    ambiguous = host.ctl("run", "prod")
    assert ambiguous.returncode == 1
    assert "team a report/prod" in ambiguous.stderr and "team b report/prod" in ambiguous.stderr
    run_id = host.json("run", "team b report/prod")["id"]
    assert host.ended(run_id)["flow"] == "team b report"
    assert host.api.state(run_id) == "COMPLETED"


def test_a_double_is_refused_wherever_its_file_stands(host: Host) -> None:
    copy = host.root / "code" / "copy"
    copy.mkdir()
    (copy / "flow.py").write_text(PROJECT.format(team="a"))
    before = host.api.deployment("team%20a%20report", "prod")
    double = host.drop_in("05-copy.yaml", OF_TEAM.format(root=host.root / "code", team="a").replace("team-a", "copy"))
    try:
        reloaded = host.json("reload")
        (problem,) = reloaded["problems"]
        assert problem["file"] == str(double)
        assert str(double) in problem["message"] and "30-team-a.yaml" in problem["message"]
        assert sorted(one["state"] for one in host.json("deployments") if one["name"] == "prod") == [
            "invalid",
            "ready",
            "ready",
        ]
        same = ("id", "path", "entrypoint", "paused", "schedules")
        after = host.api.deployment("team%20a%20report", "prod")
        assert {key: after[key] for key in same} == {key: before[key] for key in same}
    finally:
        double.unlink()
    assert host.json("reload")["problems"] == []
    assert host.api.deployment("team%20a%20report", "prod")["paused"] is False


def test_the_schema_follows_what_the_code_imports(host: Host) -> None:
    limits, environment_file = host.root / "code" / "limits.py", host.root / "code" / "env"
    assert regions(host) == ["eu"]
    limits.write_text(LIMITS.format('"eu", "us"'))
    assert host.json("reload")["ok"]
    assert regions(host) == ["eu", "us"]
    limits.write_text(LIMITS.format('"eu", "us", "asia"'))
    eventually(lambda: regions(host) == ["eu", "us", "asia"], "the schema to follow by itself")
    run_id = host.run_now("test model/model", region="asia")
    host.ended(run_id)
    assert host.api.state(run_id) == "COMPLETED"
    environment_file.write_text("STAGE=live\n")
    assert host.json("reload")["ok"]
    assert regions(host, "live model") == ["eu", "us", "asia"]
    assert host.api.deployment("test%20model", "model")["paused"] is True


def test_toggles_stay(host: Host) -> None:
    def schedules() -> dict[str, bool]:
        stored = host.api.deployment("greet", "toggled")
        return {one["schedule"]["cron"]: one["active"] for one in stored["schedules"]}

    stored = host.api.deployment("greet", "toggled")
    assert stored["paused"] is True
    assert host.ctl("resume", "toggled").returncode == 0
    path = f"/deployments/{stored['id']}/schedules"
    second = next(one for one in stored["schedules"] if one["schedule"]["cron"] == "0 3 * * *")
    host.api.call("PATCH", f"{path}/{second['id']}", {"active": False})
    host.api.call("POST", path, [FOREIGN])
    wanted = {"0 2 * * *": True, "0 3 * * *": False, "30 9 * * *": True}

    host.drop_in("20-toggled.yaml", toggled(host, "second", ""))
    assert host.json("reload")["ok"]
    stored = host.api.deployment("greet", "toggled")
    assert (stored["description"], stored["paused"], schedules()) == ("second", False, wanted)
    assert host.ctl("pause", "toggled").returncode == 0
    host.drop_in("20-toggled.yaml", toggled(host, "third", ""))
    assert host.json("reload")["ok"]
    stored = host.api.deployment("greet", "toggled")
    assert (stored["description"], stored["paused"], schedules()) == ("third", True, wanted)
    host.drop_in("20-toggled.yaml", toggled(host, "fourth", "paused: false"))
    assert host.json("reload")["ok"]
    assert (host.api.deployment("greet", "toggled")["paused"], schedules()) == (False, wanted)


def test_a_flow_that_takes_any_parameter_runs(host: Host) -> None:
    run_id = host.run_now("any", a=5)
    host.ended(run_id)
    assert host.api.state(run_id) == "COMPLETED"
    assert "got 5 2 {}" in host.ctl("logs", run_id).stdout
    stored = host.api.deployment("takes-any", "any")
    assert stored["parameter_openapi_schema"]["required"] == ["a"]


def test_a_timestamp_of_yaml_is_a_parameter_that_the_flow_can_read(host: Host) -> None:
    assert host.api.deployment("takes-a-date", "date")["parameters"] == {"at": "2025-08-27T10:30:00-05:00"}
    run_id = host.run_now("date")
    host.ended(run_id)
    assert host.api.state(run_id) == "COMPLETED"
    assert "at 2025-08-27T10:30:00-05:00" in host.ctl("logs", run_id).stdout
