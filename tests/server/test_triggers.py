"""triggers: the automations of runnerd are those that Prefect's own deploy makes, and they run the deployment here."""

from __future__ import annotations

import json
import subprocess
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kits.daemon import Api, Host, eventually
from tests.kits.prefect_servers import PrefectServer, running_server

pytestmark = pytest.mark.server
EVENTS = {"PREFECT_EXPERIMENTAL_EVENTS": "true"}
POOL = "triggered"
LIMIT_S = 300.0
EMIT_EVERY_S = 5.0
FLOW = '''
from prefect import flow

@flow
def work(x: int = 0):
    """Nothing."""
'''
# As a prefect.yaml has them. 2.20 takes a trigger without a type for one of events, whatever else it has.
TRIGGERS: dict[str, list[dict[str, Any]]] = {
    "plain": [{"expect": ["demo.happened"]}],
    "full": [
        {
            "name": "all keys",
            "enabled": False,
            "match": {"prefect.resource.id": ["demo.*", "test.*"]},
            "match_related": {"prefect.resource.role": "flow"},
            "after": ["demo.begun"],
            "expect": ["demo.happened", "demo.failed"],
            "for_each": ["prefect.resource.id"],
            "posture": "Proactive",
            "threshold": 3,
            "within": 60,
            "parameters": {"x": 7, "at": "{{ event.occurred }}"},
            "job_variables": {"env": {"A": "1"}},
        },
        {"posture": "Proactive", "expect": ["demo.heartbeat"]},
    ],
    "composite": [
        {
            "type": "compound",
            "require": "all",
            "within": 3600,
            "triggers": [
                {"type": "event", "expect": ["a"]},
                {"type": "sequence", "triggers": [{"type": "event", "expect": ["b"]}, {"type": "event"}]},
            ],
        },
        {"type": "sequence", "within": 10.5, "triggers": [{"type": "event", "posture": "Proactive", "within": 20}]},
    ],
}
ONLY_3 = {"later": [{"expect": ["x"], "schedule_after": 120, "description": "Of its own."}], "none": []}
# The same by flow.to_deployment(triggers=...), which is what serve() makes.
BY_CODE = """
import sys, yaml
from prefect.events import DeploymentEventTrigger
import flows

triggers = [DeploymentEventTrigger(**each) for each in yaml.safe_load(sys.stdin)]
flows.work.to_deployment("served", triggers=triggers).apply()
"""
CHANGING = {"id", "created", "updated"}


@pytest.fixture(scope="module", params=[2, 3])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """A server that has automations."""
    if request.param == 3:
        yield request.getfixturevalue("prefect3")
        return
    with running_server(2, tmp_path_factory.mktemp("events2"), **EVENTS) as it:
        yield it


def declared(major: int) -> dict[str, list[dict[str, Any]]]:
    return {**TRIGGERS, **(ONLY_3 if major == 3 else {})}


def automations(api: Api, name: str) -> list[Any]:
    """The automations that a deployment owns, without what differs from one to the next."""
    deployment_id = api.deployment("work", name)["id"]
    found = api.call("GET", f"/automations/related-to/prefect.deployment.{deployment_id}")
    text = json.dumps(sorted(found, key=lambda one: str(one["name"])))
    return [without_changing(one) for one in json.loads(text.replace(deployment_id, "ID").replace(name, "NAME"))]


def without_changing(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_changing(one) for key, one in value.items() if key not in CHANGING}
    if isinstance(value, list):
        items = [without_changing(one) for one in value]
        return sorted(items) if all(isinstance(one, str) for one in items) else items  # the servers have sets
    return value


def run(server: PrefectServer, project: Path, *command: str, text: str = "") -> None:
    environment = {**server.environment, **EVENTS, "PREFECT_CLIENT_MAX_RETRIES": "30"}  # SQLite is busy now and then
    done = subprocess.run(
        command, env=environment, cwd=project, input=text, text=True, capture_output=True, timeout=LIMIT_S
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]


def test_automations_are_those_of_prefect_field_by_field(server: PrefectServer, tmp_path: Path) -> None:
    api, wanted = Api(server.url), declared(server.major)
    (tmp_path / "flows.py").write_text(FLOW)
    api.call("POST", "/work_pools/", {"name": POOL, "type": "process"})
    theirs = [
        {"name": f"{name}-theirs", "entrypoint": "flows.py:work", "work_pool": {"name": POOL}, "triggers": triggers}
        for name, triggers in wanted.items()
    ]
    (tmp_path / "prefect.yaml").write_text(yaml.safe_dump({"name": "p", "deployments": theirs}))
    run(server, tmp_path, str(Path(server.python).with_name("prefect")), "--no-prompt", "deploy", "--all")
    run(server, tmp_path, server.python, "-c", BY_CODE, text=yaml.safe_dump(TRIGGERS["full"]))
    host = Host(url=server.url, python=server.python)
    try:
        ours = [{**one, "name": one["name"].replace("theirs", "ourown")} for one in theirs]
        ours.append({"name": "own", "entrypoint": "flows.py:work", "triggers": TRIGGERS["full"]})
        for one in ours:
            one["run"] = {"working_directory": str(tmp_path)}
        host.drop_in("triggers.yaml", yaml.safe_dump({"deployments": ours}))
        host.start()
        host.registered(*(one["name"] for one in ours))
        assert host.json("status")["problems"] == []
        for name, triggers in wanted.items():
            made = automations(api, f"{name}-ourown")
            assert made == automations(api, f"{name}-theirs")
            assert len(made) == len(triggers)
        assert automations(api, "own") == automations(api, "served")

        before = automations_by_id(api, "full-ourown")
        host.kill()
        host.start()
        host.registered(*(one["name"] for one in ours))
        assert automations_by_id(api, "full-ourown") == before, "a restart makes none anew"
        foreign = make_foreign(api, "full-ourown")
        ours[1]["triggers"] = ours[1]["triggers"][:1]
        host.drop_in("triggers.yaml", yaml.safe_dump({"deployments": ours}))
        assert host.json("reload")["ok"]
        after = automations_by_id(api, "full-ourown")
        assert set(after.values()) == {"all keys", "foreign"}
        assert foreign in after and not before.keys() & after.keys()
    finally:
        host.close()
        delete_automations(api)


def delete_automations(api: Api) -> None:
    """Those that expect something in vain would go on making runs on the server that other tests use."""
    for one in api.call("POST", "/automations/filter", {}):
        api.call("DELETE", f"/automations/{one['id']}")


def automations_by_id(api: Api, name: str) -> dict[str, str]:
    deployment_id = api.deployment("work", name)["id"]
    found = api.call("GET", f"/automations/related-to/prefect.deployment.{deployment_id}")
    return {str(one["id"]): str(one["name"]) for one in found}


def make_foreign(api: Api, name: str) -> str:
    """An automation about the deployment that the deployment does not own, as somebody makes in the UI."""
    deployment_id = api.deployment("work", name)["id"]
    action = {"type": "run-deployment", "source": "selected", "deployment_id": deployment_id, "parameters": None}
    trigger = {"type": "event", "expect": ["never"], "posture": "Reactive", "threshold": 1, "within": 0}
    made = api.call("POST", "/automations/", {"name": "foreign", "trigger": trigger, "actions": [action]})
    return str(made["id"])


def test_automations_of_a_file_are_those_of_prefect(prefect3: PrefectServer, tmp_path: Path) -> None:
    """As `prefect automation create --from-file` makes them; 2.20 has no such command."""
    api = Api(prefect3.url)
    one = {
        "name": "theirs of a file",
        "description": "Of a file.",
        "trigger": {"expect": ["prefect.flow-run.Failed"], "posture": "Reactive", "threshold": 2, "within": 60},
        "actions": [{"type": "cancel-flow-run"}],
        "actions_on_resolve": [{"type": "do-nothing"}],
    }
    (tmp_path / "theirs.yaml").write_text(yaml.safe_dump({"automations": [one]}))
    program = str(Path(prefect3.python).with_name("prefect"))
    run(prefect3, tmp_path, program, "automation", "create", "--from-file", "theirs.yaml")
    host = Host(url=prefect3.url, python=prefect3.python)
    try:
        ours = {**one, "name": "ourown of a file"}
        host.drop_in("a.yaml", yaml.safe_dump({"automations": [ours]}))
        host.start()
        made = eventually(lambda: named(api, ours["name"]), "the automation to be made", log=host.said)
        assert host.json("status")["problems"] == []
        assert [{**each, "name": one["name"]} for each in made] == named(api, one["name"])
        (host.drop_ins / "a.yaml").unlink()
        assert host.json("reload")["ok"]
        eventually(lambda: not named(api, ours["name"]), "it to go with its file", log=host.said)
        assert len(named(api, one["name"])) == 1
    finally:
        host.close()


def named(api: Api, name: str) -> list[Any]:
    body = {"automations": {"name": {"any_": [name]}}}
    return [without_changing(one) for one in api.call("POST", "/automations/filter", body)]


def test_an_event_runs_the_deployment_here(prefect3: PrefectServer, tmp_path: Path) -> None:
    (tmp_path / "flows.py").write_text(FLOW)
    api, host = Api(prefect3.url), Host(url=prefect3.url, python=prefect3.python)
    event = f"demo.{uuid.uuid4()}"
    try:
        trigger = {"expect": [event], "parameters": {"x": 3}}
        one = {"name": "on-event", "entrypoint": "flows.py:work", "triggers": [trigger]}
        one["run"] = {"working_directory": str(tmp_path)}
        host.drop_in("triggers.yaml", yaml.safe_dump({"deployments": [one]}))
        host.start()
        host.registered("on-event")
        deployment_id, emitted_at = api.deployment("work", "on-event")["id"], float("-inf")

        def emitted_and_done() -> Any:
            """The server takes up a new automation in its own time, so the event happens until then.

            Now and then only: a server on SQLite that is kept busy drops the run that an automation wants.
            """
            nonlocal emitted_at
            if time.monotonic() - emitted_at > EMIT_EVERY_S:
                emitted_at = time.monotonic()
                resource = {"prefect.resource.id": "demo.thing"}
                happened = {"occurred": datetime.now(UTC).isoformat(), "event": event, "resource": resource}
                api.call("POST", "/events", [{**happened, "id": str(uuid.uuid4())}])
            return api.runs_of(deployment_id, "COMPLETED")

        done = eventually(emitted_and_done, "a run that the event caused", LIMIT_S, log=host.said)
        assert done[0]["parameters"] == {"x": 3}
    finally:
        host.close()


def test_a_server_of_2_without_automations_is_told(prefect2: PrefectServer, tmp_path: Path) -> None:
    (tmp_path / "flows.py").write_text(FLOW)
    host = Host(url=prefect2.url, python=prefect2.python)
    try:
        one = {"name": "untriggered", "entrypoint": "flows.py:work", "triggers": [{"expect": ["x"]}]}
        one["run"] = {"working_directory": str(tmp_path)}
        host.drop_in("triggers.yaml", yaml.safe_dump({"deployments": [one]}))
        host.start()
        host.registered("untriggered")
        (problem,) = host.json("status")["problems"]
        assert "the server has no automations (Automations are not enabled. Please enable the" in problem["message"]
        assert problem["deployment"] == "untriggered"
        assert host.ended(host.run_now("untriggered"))["api_state"] == "COMPLETED"
    finally:
        host.close()
