"""Work pools of type process through whole daemons and real servers of both majors: runnerd instead of a worker."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kits.daemon import eventually
from tests.kits.prefect_servers import PrefectServer
from tests.kits.served_pool import PoolHost, new_pool, pools_of

Json = Any
PREFECT_YAML = """
name: project
deployments:
  - name: cloned
    entrypoint: project/where.py:where
    work_pool: {{name: {pool}}}
    pull:
      - prefect.deployments.steps.git_clone: {{repository: "file://{repository}", branch: main}}
  - name: placed
    entrypoint: where.py:where
    parameters: {{name: placed}}
    work_pool:
      name: {pool}
      job_variables:
        env: {{FROM_DEPLOYMENT: "yes", EVERYWHERE: deployment}}
        labels: {{team: data, host.cores: "4"}}
        name: where-it-was
        retries: 3
        place: "{elsewhere}"
    pull:
      - prefect.deployments.steps.set_working_directory: {{directory: "{directory}"}}
"""
WHERE = """
import json, os, sys
from prefect import flow

@flow
def where(name: str = "cloned") -> None:
    with open(os.environ["MARKS"] + "-" + name, "w") as file:
        json.dump({"cwd": os.getcwd(), "argv": sys.orig_argv, "env": dict(os.environ)}, file)
"""

EXPECTED = {
    "FROM_DEPLOYMENT": "yes",
    "EVERYWHERE": "deployment",
    "FROM_YAML": "yes",
    "FROM_BLOCK": "s3cret",
    "FROM_MAP": "db.example",
    "FROM_VARIABLE": "<eu>",
    "RETRIES": "3",
}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A bare git repository with the project in it."""
    work, bare = tmp_path / "work", tmp_path / "project.git"
    (work / "project").mkdir(parents=True)
    (work / "project" / "where.py").write_text(WHERE)
    (work / "where.py").write_text(WHERE)
    identity = {"GIT_CONFIG_GLOBAL": "/dev/null", "HOME": str(tmp_path)}
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    for words in (["init", "-q", "-b", "main"], ["add", "."], [*who, "commit", "-q", "-m", "x"]):
        subprocess.run(["git", *words], cwd=work, env={**os.environ, **identity}, check=True)
    subprocess.run(["git", "clone", "-q", "--bare", str(work), str(bare)], check=True)
    return bare


@pytest.fixture
def host(prefect: PrefectServer) -> Iterator[tuple[PoolHost, str]]:
    """A host that serves one pool, which it has made; and the pool's name."""
    host, pool = PoolHost(prefect), new_pool()
    with pools_of(host, f"pools: [{{name: {pool}, run: {{stop_timeout: 600s}}}}]", pool):
        host.serves(pool)
        yield host, pool


def template(python: str, token: str) -> Json:
    """One with all that a template can have."""
    block = token.replace("_", "-")  # one alphabet for blocks, another for variables
    environment = {
        "EVERYWHERE": "template",
        "FROM_YAML": "{{ $OF_THE_YAML }}",
        "FROM_BLOCK": f"{{{{ prefect.blocks.secret.{block} }}}}",
        "FROM_MAP": f"{{{{ prefect.blocks.secret.{block}-map.host }}}}",
        "FROM_VARIABLE": f"<{{{{ prefect.variables.{token} }}}}>",
        "RETRIES": "{{ retries }}",
    }
    text = {"type": "string"}
    return {
        "job_configuration": {
            "command": '{{ shell }} -c "pwd > $MARKS-began; exec {{ interpreter }} -X utf8 -m prefect.engine"',
            "env": "{{ env }}",
            "labels": "{{ labels }}",
            "name": "<{{ name }}>",
            "stream_output": "{{ stream_output }}",
            "working_dir": "{{ place }}",
        },
        "variables": {
            "type": "object",
            "required": ["retries"],
            "properties": {
                "shell": {**text, "default": "sh"},
                "interpreter": {**text, "default": python},
                "env": {"type": "object", "additionalProperties": text, "default": environment},
                "labels": {"type": "object", "additionalProperties": text},
                "name": text,
                "place": text,
                "retries": {"type": "integer", "maximum": 5},
                "stream_output": {"type": "boolean", "default": True},
            },
        },
    }


def deployed_by_prefect(host: PoolHost, server: PrefectServer, pool: str, repository: Path, elsewhere: Path) -> None:
    """What a project's people do."""
    directory = repository.parent / "work"
    places = {"repository": repository, "directory": directory, "elsewhere": elsewhere}
    text = PREFECT_YAML.format(pool=pool, **places)
    (directory / "prefect.yaml").write_text(text)
    prefect = str(Path(server.python).with_name("prefect"))
    command = [prefect, "--no-prompt", "deploy", "--all"]
    done = subprocess.run(command, cwd=directory, env=server.environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_prefect_deployed_runs_unchanged_and_what_cannot_be_says_why(
    host: tuple[PoolHost, str], prefect: PrefectServer, repository: Path, tmp_path: Path
) -> None:
    (served, pool), elsewhere, token = host, tmp_path / "elsewhere", f"t-{new_pool()}".replace("-", "_")
    elsewhere.mkdir()
    api = served.api
    deployed_by_prefect(served, prefect, pool, repository, elsewhere)
    cloned = served.create_run(api.deployment("where", "cloned")["id"])
    eventually(lambda: api.run(cloned)["infrastructure_pid"], f"it to be started:\n{served.said()}")

    # The template changes while the daemon runs; runs that were made before find it changed.
    api.call("PATCH", f"/work_pools/{pool}", {"is_paused": True})
    bad = {
        "needy": ({}, 'variable "retries" is required'),
        "typed": ({"retries": "many"}, 'variable "retries" must be a whole number'),
        "beyond": ({"retries": 9}, 'variable "retries" must be at most 5'),
        "blockless": ({"retries": 1, "name": "{{ prefect.blocks.secret.nobody-s }}"}, "block secret/nobody-s does not"),
        "unknown": ({"retries": 1, "env": {"A": "{{ nobody-s }}"}}, 'unknown placeholder "{{ nobody-s }}"'),
        "nosy": ({"retries": 1, "env": {"A": "{{ $OF_THE_DAEMON }}"}}, '"OF_THE_DAEMON" is not set'),
        "commandless": ({"retries": 1, "shell": "/nonexistent/sh"}, "/nonexistent/sh"),
    }
    wrong = {
        name: served.create_run(served.deploy(pool, name, job_variables=given)) for name, (given, _) in bad.items()
    }
    placed_run = served.create_run(api.deployment("where", "placed")["id"])
    wanted = template(prefect.python, token)
    api.call("PATCH", f"/work_pools/{pool}", {"base_job_template": wanted, "concurrency_limit": 7})
    eventually(lambda: served.pool(pool)["concurrency_limit"] == 7, "the changed pool to be seen")
    blocks(served, token)
    assert {api.state(run_id) for run_id in [*wrong.values(), placed_run]} == {"SCHEDULED"}, "the pool is paused"
    api.call("PATCH", f"/work_pools/{pool}", {"is_paused": False})

    run, seen = served.ends(cloned, "COMPLETED"), where(served, "cloned")
    assert Path(seen["cwd"]).name == "project-main"
    eventually(lambda: not Path(seen["cwd"]).parent.exists(), "the directory made for this run to be removed")
    assert seen["argv"] == [prefect.python, "-m", "prefect.engine"]
    assert run["infrastructure_pid"].startswith(f"runnerd@{served.name}:")
    assert (run["work_pool_name"], run["work_queue_name"]) == (pool, "default")
    if prefect.major >= 3:
        assert {"prefect.worker.name": served.name, "prefect.work-pool.name": pool}.items() <= run["labels"].items()

    for name, run_id in wrong.items():
        words = served.ends(run_id, "CRASHED")["state"]["message"]
        assert words.startswith("submission failed: "), words
        assert bad[name][1] in words
        if name != "commandless":
            assert f"deployment greet/{name}'s job_variables" in words
        document = served.document(run_id)
        assert (document["deployment"], document["flow"], document["pool"]) == (name, "greet", pool)

    run, seen = served.ends(placed_run, "COMPLETED"), where(served, "placed")
    assert seen["cwd"] == str(repository.parent / "work")
    assert seen["argv"] == [prefect.python, "-X", "utf8", "-m", "prefect.engine"]
    assert Path(f"{served.marks}-began").read_text().strip() == str(elsewhere)
    assert {key: seen["env"].get(key) for key in EXPECTED} == EXPECTED
    assert "OF_THE_DAEMON" not in seen["env"]
    document = served.document(placed_run)
    assert document["process_name"] == "<where-it-was>"
    assert document["labels"] == {"team": "data", "host.cores": "4"}
    if prefect.major >= 3:
        assert {"team": "data", "host.cores": "4", "prefect.worker.type": "process"}.items() <= run["labels"].items()


def where(host: PoolHost, name: str) -> Json:
    """What the flow saw."""
    return json.loads(Path(f"{host.marks}-{name}").read_text())


def blocks(host: PoolHost, name: str) -> None:
    """Two secrets and a variable of this name."""
    kind, block = host.api.call("GET", "/block_types/slug/secret")["id"], name.replace("_", "-")
    schema = host.api.call("POST", "/block_schemas/filter", {"block_schemas": {"block_type_id": {"any_": [kind]}}})[0]
    of_it = {"block_type_id": kind, "block_schema_id": schema["id"]}
    for called, value in ((block, "s3cret"), (f"{block}-map", {"host": "db.example"})):
        host.api.call("POST", "/block_documents/", {**of_it, "name": called, "data": {"value": value}})
    host.api.call("POST", "/variables/", {"name": name, "value": "eu"})
