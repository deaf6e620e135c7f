"""Deployments whose code is in a git repository: the whole of runnerd against real Prefect servers, and a real git."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kits.daemon import Host, eventually
from tests.kits.git_server import GitServer, Repository, serving_git
from tests.kits.prefect_servers import PrefectServer

Json = Any

FLOW = """
import os, time
from prefect import flow

@flow
def etl(name: str = "one"{more}):
    print("running", {version!r}, flush=True)
    while os.path.exists({gate!r}):
        time.sleep(0.1)
    from flows import part
    print("part", part.VERSION, flush=True)
"""
SECRET = "ada:s3cr3t-pa55word"


class Code:
    """The repository of a flow that waits in the middle while `gate` exists, and then imports another file."""

    def __init__(self, root: Path) -> None:
        self.repository = Repository(root / "srv")
        self.gate = root / "gate"

    def write(self, version: str, *, more: str = "") -> str:
        flow = FLOW.format(version=version, more=more, gate=str(self.gate))
        return self.repository.commit(
            {"flows/etl.py": flow, "flows/__init__.py": "", "flows/part.py": f"VERSION = {version!r}\n"}
        )


@pytest.fixture
def code(tmp_path: Path) -> Code:
    return Code(tmp_path)


@pytest.fixture
def git_server(code: Code) -> Iterator[GitServer]:
    with serving_git(code.repository.path.parent) as server:
        yield server


@pytest.fixture(params=["prefect2", "prefect3"])
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    server: PrefectServer = request.getfixturevalue(request.param)
    host = Host(url=server.url, python=server.python)
    host.major = 2 if request.param == "prefect2" else 3  # type: ignore[attr-defined]
    yield host
    host.close()


def deployment(host: Host, name: str) -> Json:
    done = host.ctl("status", name, "--json")
    return json.loads(done.stdout) if done.returncode == 0 else None


def at(host: Host, name: str, commit: str) -> Json:
    """The deployment's document, once it is registered at this commit."""

    def look() -> Json:
        found = deployment(host, name)
        return found if found and found["state"] == "ready" and found["source"]["commit"] == commit else None

    return eventually(look, f"{name} to be at {commit}", log=host.said)


@pytest.mark.time_limit(600)
def test_a_run_keeps_its_commit_while_a_newer_one_comes(host: Host, code: Code, git_server: GitServer) -> None:
    one = code.write("one")
    git_server.login = SECRET
    (host.config / "token").write_text(f"{SECRET}\n")
    host.drop_in(
        "etl.yaml",
        "deployments:\n  - name: sourced\n    entrypoint: flows/etl.py:etl\n    source:\n"
        f"      git: {{url: '{git_server.url()}', branch: main, credentials_file: token}}\n      pull_interval: 1s\n",
    )
    host.start()
    document = at(host, "sourced", one)
    assert document["source"] == {
        "kind": "git", "url": git_server.url(), "commit": one, "pulled_at": document["source"]["pulled_at"],
        "problem": None, "held": None,
    }  # fmt: skip
    assert document["source"]["pulled_at"]
    code.gate.touch()
    assert host.ctl("run", "sourced", "--name", "first").returncode == 0
    eventually(lambda: "running one" in host.ctl("logs", "first").stdout, "the flow to begin", log=host.said)
    two = code.write("two", more=", rows: int = 3")
    at(host, "sourced", two)
    eventually(lambda: known_parameters(host) == {"name", "rows"}, "it to be registered again", log=host.said)
    code.gate.unlink()
    first = eventually(lambda: done(host, "first"), "the first run to end", log=host.said)
    output = host.ctl("logs", "first").stdout
    assert "part one" in output, output
    assert (first["api_state"], first["source"]["commit"]) == ("COMPLETED", one)
    assert host.ctl("run", "sourced", "--name", "second", "--watch").returncode == 0
    second = host.document("second")
    assert "part two" in host.ctl("logs", "second").stdout
    assert second["source"]["commit"] == two
    check_noted(host, first["id"], one)
    check_noted(host, second["id"], two)
    eventually(lambda: trees(host) == [two], "the first tree to be dropped", log=host.said)
    held = host.ctl("revert", "sourced")
    assert held.returncode == 0, held.stderr
    assert f"sourced is at {one[:12]}" in held.stdout
    assert at(host, "sourced", one)["source"]["held"] == one
    released = host.ctl("revert", "sourced", "--release")
    assert released.returncode == 0, released.stderr
    assert at(host, "sourced", two)["source"]["held"] is None
    everything = host.said() + host.ctl("status", "--json").stdout + json.dumps(deployment(host, "sourced"))
    assert SECRET.partition(":")[2] not in everything


def known_parameters(host: Host) -> set[str]:
    return set(host.api.deployment("etl", "sourced")["parameter_openapi_schema"]["properties"])


def done(host: Host, name: str) -> Json:
    document = host.document(name)
    return document if document["phase"] == "done" else None


def trees(host: Host) -> list[str]:
    found = Path(f"{host.root}/state-sources").glob("*/*/trees/*")
    return [path.name.partition("-")[0] for path in found if not path.name.startswith(".")]


def check_noted(host: Host, run_id: str, commit: str) -> None:
    """The API has the commit: a label on 3.x, a line in the run's log before."""

    def look() -> bool:
        if host.major == 3:  # type: ignore[attr-defined]
            return bool(host.api.run(run_id)["labels"].get("runnerd.source.commit") == commit)
        lines = host.api.call("POST", "/logs/filter", {"logs": {"flow_run_id": {"any_": [run_id]}}})
        return any(commit in line["message"] for line in lines)

    eventually(look, "the API to have the commit", log=host.said)


@pytest.mark.time_limit(600)
def test_a_repository_that_is_gone_is_named_and_harms_nothing(
    prefect3: PrefectServer, code: Code, git_server: GitServer
) -> None:
    host = Host(url=prefect3.url, python=prefect3.python)
    try:
        one = code.write("one")
        host.drop_in(
            "gone.yaml",
            "deployments:\n  - name: gone\n    entrypoint: flows/etl.py:etl\n    source:\n"
            f"      git: {{url: '{git_server.url('nothing.git')}'}}\n",
        )
        host.drop_in(
            "good.yaml",
            "deployments:\n  - name: good\n    entrypoint: flows/etl.py:etl\n    source:\n"
            f"      git: {{url: '{git_server.url()}'}}\n      pull_interval: 1s\n",
        )
        host.start()
        at(host, "good", one)
        why = "its code cannot be pulled: there is no such repository, or it needs other credentials"
        eventually(lambda: (deployment(host, "gone") or {}).get("problem") == why, "the problem", log=host.said)
        os.rename(code.repository.path, code.repository.path.with_name("away.git"))
        eventually(lambda: "cannot pull" in host.ctl("status").stdout, "the failure", log=host.said)
        assert deployment(host, "good")["state"] == "ready"
        assert host.ctl("run", "good", "--watch").returncode == 0
        pulled = host.ctl("pull", "good")
        assert pulled.returncode == 1
        assert "there is no such repository" in pulled.stderr
    finally:
        host.close()


STEPS = """
pull:
  - prefect.deployments.steps.git_clone: {{id: code, repository: '{url}'}}
  - prefect.deployments.steps.run_shell_script: {{script: touch ran-here, directory: '{{{{ code.directory }}}}'}}
deployments:
  - {{name: stepped, entrypoint: 'flows/etl.py:etl'}}
"""


@pytest.mark.time_limit(600)
def test_pull_steps_are_run_as_prefect_runs_them(host: Host, code: Code, git_server: GitServer) -> None:
    code.write("one")
    host.drop_in("steps.yaml", STEPS.format(url=git_server.url()))
    host.start()

    def registered() -> Json:
        found = deployment(host, "stepped")
        return found if found and found["state"] == "ready" and not found["problem"] else None

    eventually(registered, "stepped to be registered", log=host.said)
    code.write("two")
    asked = host.ctl("run", "stepped", "--name", "stepped-1", "--watch")
    assert asked.returncode == 0, asked.stdout + asked.stderr + host.said()
    output = host.ctl("logs", "stepped-1").stdout
    assert "running two" in output and "part two" in output, output
    assert host.document("stepped-1")["api_state"] == "COMPLETED"
