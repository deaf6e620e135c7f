"""memory_max, cpu_quota, tasks_max by the run's own cgroup, proven on a kernel that has the controllers."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.kits.machines.commanded import HERE
from tests.kits.machines.own_kernel import DoesNotBoot, OwnKernel, why_not
from tests.kits.machines.trees import own_kernel_of, package

MIB = 2**20
BY_CGROUP = {"memory_max": "cgroup", "cpu_quota": "cgroup", "tasks_max": "cgroup"}
PROGRAM = "/usr/local/lib/limited_runs.py"
SCENARIO_S = 300.0
PREPARE = """
DEBIAN_FRONTEND=noninteractive apt-get -qq install -y /opt/dist/PACKAGE
echo 'api: {url: "http://127.0.0.1:9/api"}' >/etc/runnerd/runnerd.yaml
"""


@pytest.fixture(scope="module")
def own_kernel(suite: str) -> Iterator[OwnKernel]:
    """A machine with the package, whose API is nowhere."""
    why = why_not()
    if why is not None:
        pytest.skip(why)
    machine = own_kernel_of(suite, PREPARE.replace("PACKAGE", package().name))
    try:
        try:
            machine.boot()
        except DoesNotBoot as error:
            pytest.skip(str(error))
        machine.write(PROGRAM, (HERE / "limited_runs.py").read_text())
        yield machine
    finally:
        machine.close()


@pytest.fixture(autouse=True)
def _last_words(request: pytest.FixtureRequest, own_kernel: OwnKernel) -> Iterator[None]:
    """What the machine's journal said goes with a failure."""
    yield
    if getattr(request.node, "failed", False):
        sys.stderr.write(own_kernel.sh("journalctl --no-pager -n 80", check=False))


def play(machine: OwnKernel, scenario: str) -> Any:
    """Have a scenario of `limited_runs.py` played; what it found."""
    return json.loads(machine.run("python3", PROGRAM, scenario, timeout_s=SCENARIO_S).out)


def test_the_doctor_says_so(own_kernel: OwnKernel) -> None:
    said = own_kernel.run("runnerctl", "doctor", "--json", check=False)
    (limits,) = [check for check in json.loads(said.out)["checks"] if check["name"] == "limits"]
    assert limits["state"] == "ok"
    assert "memory_max, cpu_quota and tasks_max apply to each run as a whole" in limits["detail"]


def test_a_run_over_its_memory_goes_whole_and_alone(own_kernel: OwnKernel) -> None:
    found = play(own_kernel, "memory")
    assert (found["exit"]["oom"], found["exit"]["signal"]) == (True, 9)
    assert found["left"] is False
    assert (found["other"], found["other_killed"]) == ("running", 0)
    assert found["other_exit"]["oom"] is False


def test_a_run_that_forks_is_stopped_at_its_tasks(own_kernel: OwnKernel) -> None:
    found = play(own_kernel, "tasks")
    assert found["children"] == 11  # and the leader
    assert found["errno"] == "Resource temporarily unavailable"
    assert found["refused"] > 0
    assert (found["status_here"], found["other"]) == (0, True)
    assert found["left"] is False
    assert found["exit"]["oom"] is False


def test_a_run_that_burns_gets_its_share(own_kernel: OwnKernel) -> None:
    found = play(own_kernel, "processor")
    assert found["files"] == {
        "cpu.max": "20000 100000",
        "memory.max": str(64 * MIB),
        "memory.oom.group": "1",
        "pids.max": "12",
        "cgroup.procs": str(found["pid"]),
    }
    assert found["bounded"]["nr_throttled"] > 2


def test_limits_outlive_the_spawner_and_the_daemon(own_kernel: OwnKernel) -> None:
    found = play(own_kernel, "taken_over")
    assert found["restarts"] == 1  # at the first try: with controllers in its own cgroup that fails
    assert found["limits"] == BY_CGROUP
    assert found["same"] is True
    assert found["phases"] == ["running", "running"]
    for files in (found["files"], found["new"]):
        assert (files["memory.max"], files["cpu.max"], files["pids.max"]) == (str(64 * MIB), "50000 100000", "12")
    assert (found["exit"]["oom"], found["exit"]["signal"]) == (True, 9)
    assert found["left"] is False
    assert found["others"] == ["running", "running"]


def test_what_is_set_on_the_unit_bounds_all_together(own_kernel: OwnKernel) -> None:
    found = play(own_kernel, "together")
    assert found["unit"] == str(96 * MIB)
    assert (found["exit"]["oom"], found["exit"]["signal"]) == (True, 9)
    # If the other one ate all that it wanted, it was ended by this test; else by the kernel too.
    assert found["other_exit"]["oom"] is not found["full"]
