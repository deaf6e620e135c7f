"""Pull steps in the programs that inspect a flow, start a run and run its hooks, with a stand-in for Prefect.

tests/server/test_sources.py has a real run with real steps.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from runnerd.launch.spec import PROGRAM, PULL_STEPS, program_argv, program_text
from tests.kits.inspecting import inspect, write_stand_in

Json = Any
# A step "make" writes a flow into a new folder, and says where, as git_clone does; "fail" fails as Prefect's do.
CORE = '''
import os

class StepExecutionError(Exception):
    """As in Prefect."""

async def run_steps(steps):
    output = {}
    for step in steps:
        ((name, arguments),) = step.items()
        if name == "fail":
            raise StepExecutionError("Encountered error while running fail") from ValueError(arguments["why"])
        os.mkdir("clone")
        with open("clone/etl.py", "w") as file:
            file.write(arguments["text"])
        output.update(directory=os.path.abspath("clone"))
    return output
'''
ENGINE = """
import json, os, sys
print(json.dumps([os.getcwd(), os.environ["PREFECT__FLOW_ENTRYPOINT"], sys.path[0]]))
"""
MAKE: Json = [{"make": {"text": "rows = 3\n"}}]


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    folder = write_stand_in(tmp_path)
    steps = folder / "prefect" / "deployments" / "steps"
    steps.mkdir(parents=True)
    (steps.parent / "__init__.py").touch()
    (steps / "__init__.py").touch()
    (steps / "core.py").write_text(CORE)
    (folder / "prefect" / "engine.py").write_text(ENGINE)
    return folder


def test_an_inspection_runs_them_first_and_leaves_nothing(stand_in: Path) -> None:
    before = set(os.listdir(tempfile.gettempdir()))
    seen = inspect(sys.executable, stand_in, ["etl.py:etl"], pull={"steps": MAKE, "scratch": True})
    found = seen.good("etl.py:etl")
    assert (found.flow_name, found.file, found.sha256, found.dependencies) == ("etl", None, None, {})
    assert not (stand_in / "clone").exists(), "in a directory of its own"
    left = set(os.listdir(tempfile.gettempdir())) - before
    assert not [name for name in left if name.startswith("runnerd-inspect-")]


def test_an_inspection_in_a_directory_that_is_named(stand_in: Path) -> None:
    inspect(sys.executable, stand_in, ["etl.py:etl"], pull={"steps": MAKE, "scratch": False}).good("etl.py:etl")
    assert (stand_in / "clone" / "etl.py").exists()


def test_a_step_that_fails_is_named_with_its_cause(stand_in: Path) -> None:
    steps = [{"fail": {"why": "no such repository"}}]
    seen = inspect(sys.executable, stand_in, ["etl.py:etl"], pull={"steps": steps, "scratch": True})
    assert seen.failure("etl.py:etl").message == "etl.py: a pull step failed: ValueError: no such repository"


def run_engine(folder: Path, scratch: Path, steps: Json) -> subprocess.CompletedProcess[str]:
    environment = {
        "PYTHONPATH": str(folder),
        "PREFECT__FLOW_ENTRYPOINT": "etl.py:etl",
        PULL_STEPS: json.dumps(steps),
        PROGRAM: program_text("run_engine"),
    }
    argv = program_argv(sys.executable, "prefect.engine")
    return subprocess.run(argv, cwd=scratch, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_a_run_starts_where_they_have_led(stand_in: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    done = run_engine(stand_in, scratch, MAKE)
    assert (done.returncode, done.stderr) == (0, "")
    clone = str(scratch / "clone")
    assert json.loads(done.stdout.splitlines()[-1]) == [clone, f"{clone}/etl.py:etl", clone]


def test_a_run_whose_steps_fail_does_not_begin(stand_in: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    done = run_engine(stand_in, scratch, [{"fail": {"why": "no such repository"}}])
    assert (done.returncode, done.stdout) == (1, "prefect says hello\n")
    assert "ValueError: no such repository" in done.stderr
