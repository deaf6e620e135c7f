"""The program that runs hooks finds the flow of a work pool's run where the pull steps say, on both majors."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from runnerd import __file__ as package_file
from tests.kits.daemon import Api
from tests.kits.prefect_servers import PrefectServer

PROGRAM = Path(package_file).parent / "programs" / "run_hooks.py"
LIMIT_S = 240.0


@pytest.fixture
def deployment(prefect: PrefectServer, tmp_path: Path) -> Iterator[str]:
    """The id of one in a work pool, whose code is neither where its runs begin nor in its entrypoint."""
    code = tmp_path / "code"
    code.mkdir()
    shutil.copy(Path(__file__).with_name("hook_flows.py"), code)
    api, pool = Api(prefect.url), f"hooks-{uuid.uuid4().hex[:8]}"
    api.call("POST", "/work_pools/", {"name": pool, "type": "process"})
    flow = api.call("POST", "/flows/", {"name": "hooked"})
    step = {"prefect.deployments.steps.set_working_directory": {"directory": str(code)}}
    made = {
        "name": pool,
        "flow_id": flow["id"],
        "work_pool_name": pool,
        "entrypoint": "hook_flows.py:hooked",
        "pull_steps": [step],
    }
    found = api.call("POST", "/deployments/", made)
    assert found["work_pool_name"] == pool
    yield found["id"]
    api.call("DELETE", f"/deployments/{found['id']}")
    api.call("DELETE", f"/work_pools/{pool}")


def hooks_run(server: PrefectServer, run_id: str, hook: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """The program on its own, begun in an empty directory."""
    scratch = directory / "scratch"
    scratch.mkdir(exist_ok=True)
    environment = {
        **server.environment,
        "PREFECT__FLOW_RUN_ID": run_id,
        "PREFECT__ENABLE_CANCELLATION_AND_CRASHED_HOOKS": "false",
        "RUNNERD_HOOKS": json.dumps({"hook": hook, "of_child": False}),
        "MARKS": str(directory / "marks"),
        "MINE": "yes",
    }
    command = [server.python, "-c", PROGRAM.read_text(encoding="utf-8")]
    return subprocess.run(
        command, cwd=scratch, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )


def test_hooks_of_a_pool_s_run(prefect: PrefectServer, deployment: str, tmp_path: Path) -> None:
    api, wanted = Api(prefect.url), []
    for hook, state, marks, status in (
        ("on_cancellation", "CANCELLED", ["on_cancellation"], 0),
        ("on_crashed", "CRASHED", ["on_crashed", "on_crashed_async"], 1),  # one of them raises
    ):
        run_id = api.call("POST", f"/deployments/{deployment}/create_flow_run", {})["id"]
        api.call("POST", f"/flow_runs/{run_id}/set_state", {"state": {"type": state}, "force": True})
        done = hooks_run(prefect, run_id, hook, tmp_path)
        assert done.returncode == status, done.stdout + done.stderr
        assert "Deprecat" not in done.stderr, "what we call is no business of the flow's people"
        wanted += [f"{mark} {run_id} {state} {os.getuid()} yes" for mark in marks]
    assert (tmp_path / "marks").read_text().splitlines() == wanted
