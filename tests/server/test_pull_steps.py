"""Pull steps under real Prefect interpreters: for an inspection, and for a start up to the import of the flow."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runnerd.launch.spec import PROGRAM, PULL_STEPS, program_argv, program_text
from tests.kits.git_server import GitServer, Repository, serving_git
from tests.kits.inspecting import inspect
from tests.kits.prefect_servers import ENVS

pytestmark = pytest.mark.server

Json = Any
FLOW = """
from prefect import flow
from beside import VERSION

@flow(name="stepped")
def etl(rows: int = 3): ...

print("imported", VERSION, flush=True)
"""
LIMIT_S = 900.0


@pytest.fixture(params=["prefect2", "prefect3"])
def python(request: pytest.FixtureRequest) -> str:
    path = ENVS / request.param / "bin" / "python"
    if not path.exists():
        pytest.fail(f"there is no {path}: run `make test` once, or tests/envs/make.sh {request.param}")
    return str(path)


@pytest.fixture
def git_server(tmp_path: Path) -> Iterator[GitServer]:
    repository = Repository(tmp_path / "srv")
    repository.commit({"flows/etl.py": FLOW, "beside.py": "VERSION = 'one'\n"})
    with serving_git(repository.path.parent) as server:
        yield server


def steps(server: GitServer) -> list[Json]:
    return [
        {"prefect.deployments.steps.git_clone": {"id": "code", "repository": server.url()}},
        {
            "prefect.deployments.steps.run_shell_script": {
                "script": "touch shell-was-here", "directory": "{{ code.directory }}",
            }
        },
        {"prefect.deployments.steps.set_working_directory": {"directory": "{{ code.directory }}"}},
    ]  # fmt: skip


@pytest.mark.time_limit(LIMIT_S)
def test_an_inspection_follows_the_steps_and_leaves_nothing(python: str, git_server: GitServer, tmp_path: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    pull = {"steps": steps(git_server), "scratch": True}
    seen = inspect(python, folder, ["flows/etl.py:etl"], pull=pull, time_limit_s=LIMIT_S)
    found = seen.good("flows/etl.py:etl")
    assert found.flow_name == "stepped"
    assert set(found.parameter_schema["properties"]) == {"rows"}
    assert (found.file, found.sha256, found.dependencies) == (None, None, {})
    assert not [one for one in os.listdir("/tmp") if one.startswith("runnerd-inspect-") and is_own(one, git_server)]
    broken = [{"prefect.deployments.steps.git_clone": {"repository": git_server.url("nothing.git")}}]
    seen = inspect(python, folder, ["flows/etl.py:etl"], pull={"steps": broken, "scratch": True}, time_limit_s=LIMIT_S)
    assert "a pull step failed" in seen.failure("flows/etl.py:etl").message


def is_own(name: str, server: GitServer) -> bool:
    return any("shell-was-here" in files for _, _, files in os.walk(f"/tmp/{name}"))


@pytest.mark.time_limit(LIMIT_S)
def test_a_start_follows_the_steps(python: str, git_server: GitServer, tmp_path: Path) -> None:
    """The engine then fails for want of a server: what it imports, and from where, is seen before."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(tmp_path),
        "PREFECT_HOME": str(tmp_path / "home"),
        "PREFECT_API_URL": "http://127.0.0.1:1/api",
        "PREFECT_CLIENT_MAX_RETRIES": "0",
        "PREFECT__FLOW_RUN_ID": "6d9c3c1e-3a0c-4c0a-9a0e-000000000001",
        "PREFECT__FLOW_ENTRYPOINT": "flows/etl.py:etl",
        PULL_STEPS: json.dumps(steps(git_server)),
        PROGRAM: f"{program_text('run_engine').partition('if __name__')[0]}\n{LOOK}",
    }
    done = subprocess.run(
        program_argv(python, "prefect.engine"),
        cwd=scratch, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    clone = next(scratch.iterdir())
    assert (clone / "shell-was-here").exists()
    last = json.loads(done.stdout.splitlines()[-1])
    assert last == {"directory": str(clone), "entrypoint": f"{clone}/flows/etl.py:etl", "path": str(clone)}


# What `main` does up to the engine: with it, Prefect would ask its server.
LOOK = """
sys.path[0] = os.getcwd()
run_pull_steps(json.loads(os.environ.pop("RUNNERD_PULL_STEPS")))
said = {"directory": os.getcwd(), "entrypoint": os.environ["PREFECT__FLOW_ENTRYPOINT"], "path": sys.path[0]}
sys.stdout.write(json.dumps(said) + chr(10))
"""
