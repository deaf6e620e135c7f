"""memory_max, cpu_quota, tasks_max: by the run's own cgroup where the kernel has the controllers, else by rlimits."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kits.machines.host_on_machine import MachineHost

RUNS = "/sys/fs/cgroup/system.slice/runnerd-runs.service"
DROP_IN = """
deployments:
  - {name: eats, entrypoint: 'machine_flows.py:eats', run: {memory_max: 600M, cpu_quota: 150%, tasks_max: 64}}
  - {name: naps, entrypoint: 'machine_flows.py:naps', run: {memory_max: 600M, cpu_quota: 150%, tasks_max: 64}}
"""


@pytest.fixture
def limited(host: MachineHost) -> Any:
    host.configure(limited=DROP_IN)
    yield host
    host.configure()


def has_controllers(host: MachineHost) -> bool:
    return {"memory", "cpu", "pids"} <= set(host.sh(f"cat {RUNS}/cgroup.controllers").split())


def test_by_the_cgroup(limited: MachineHost) -> None:
    if not has_controllers(limited):
        pytest.skip("this kernel gives cgroup v2 no memory, cpu and pids controllers")
    other = limited.begin("naps")
    place = f"{RUNS}/run-{other}.1"
    assert limited.sh(f"cd {place}; cat memory.max cpu.max pids.max").split("\n") == [
        str(600 * 2**20),
        "150000 100000",
        "64",
    ]
    run_id = limited.begin("eats")
    state = limited.ends(run_id, "Crashed")
    assert "out of memory (memory_max 600M)" in state["message"]
    limited.until(lambda: limited.found(run_id).get("phase") == "done", "it is done")
    assert limited.found(run_id)["exit"]["oom"] is True
    assert limited.found(other)["phase"] == "running"  # alone
    limited.runnerctl("cancel", other, "--wait")


def test_by_rlimits(limited: MachineHost) -> None:
    if has_controllers(limited):
        pytest.skip("here the cgroup does it")
    other = limited.begin("naps")
    limits = limited.sh(f"cat /proc/{limited.found(other)['pid']}/limits")
    words = {line[:25].strip(): line[25:].split()[0] for line in limits.splitlines()}
    assert (words["Max data size"], words["Max processes"]) == (str(600 * 2**20), "64")
    assert "cpu_quota has no effect" in limited.runnerctl("doctor", check=False).out
    run_id = limited.begin("eats")
    limited.ends(run_id, "Failed")  # its own MemoryError
    assert limited.found(other)["phase"] == "running"
    limited.runnerctl("cancel", other, "--wait")
