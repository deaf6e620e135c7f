"""Work pools on a packaged host: the sandbox, the flows' user and a directory for each run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.kits.machines.host_on_machine import MAIN, MachineHost

POOL = "etl"
SCRATCH = MAIN.replace(", working_directory: /opt/flows", "")


@pytest.fixture
def served(host: MachineHost) -> Iterator[MachineHost]:
    """The host, serving a pool that it had to make."""
    host.configure(SCRATCH, pool=f"pools: [{{name: {POOL}, queues: [high]}}]\n")
    host.until(lambda: the_pool(host)["state"] == "ready", "the pool is served")
    yield host
    host.configure()


def the_pool(host: MachineHost) -> dict[str, Any]:
    (pool,) = host.status()["pools"]
    found: dict[str, Any] = pool
    return found


def a_run_of(host: MachineHost, flow: str) -> str:
    """A run of this flow, deployed by somebody else, with pull steps; its id."""

    def ask(path: str, body: Any) -> Any:
        return json.loads(host.ask("POST", path, body).out)

    flow_id = ask("/flows/", {"name": flow})["id"]
    step = {"prefect.deployments.steps.set_working_directory": {"directory": "/opt/flows"}}
    wanted = {"name": "pooled", "flow_id": flow_id, "entrypoint": f"machine_flows.py:{flow}", "pull_steps": [step]}
    deployment = ask("/deployments/", {**wanted, "work_pool_name": POOL, "work_queue_name": "high"})
    made: str = ask(f"/deployments/{deployment['id']}/create_flow_run", {})["id"]
    return made


def test_a_run_of_a_pool_is_the_flows_user_s_and_lives_through_a_restart(served: MachineHost) -> None:
    host = served
    host.sh("rm -f /tmp/go")
    run_id = a_run_of(host, "waits")
    host.until(lambda: host.state(run_id)["name"] == "Running", "the flow runs")
    run = host.found(run_id)
    assert (run["user"], run["pool"], run["queue"]) == ("runnerd-flow", POOL, "high")
    directory = host.sh(f"stat -c '%a %U %n' /tmp/runnerd-{run_id[:8]}-*").split()
    assert directory[:2] == ["700", "runnerd-flow"], directory
    host.run("systemctl", "restart", "runnerd")
    assert host.found(run_id)["pid"] == run["pid"]
    host.sh("touch /tmp/go")
    host.ends(run_id, "Completed")
    host.until(lambda: host.found(run_id)["phase"] == "done", "it is done with")
    host.until(lambda: host.sh("ls -d /tmp/runnerd-* 2>/dev/null || true") == "", "its directory is gone")
    host.until(lambda: host.journal(f"RUNNERD_POOL={POOL}", f"RUNNERD_RUN_ID={run_id}"), "the journal knows the pool")


def test_the_host_is_a_worker_of_the_pool(served: MachineHost) -> None:
    (worker,) = json.loads(served.ask("POST", f"/work_pools/{POOL}/workers/filter", {}).out)
    assert (worker["name"], worker["status"]) == (served.status()["name"], "ONLINE")
    said = served.runnerctl("pool", "inspect", POOL).out
    assert "process" in said and served.status()["name"] in said
