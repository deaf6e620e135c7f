"""Cgroups of runs, real ones: who is in, killing them with all that is below, and removing them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runnerd.spawner.cgroups.run_cgroup import RunCgroup
from runnerd.spawner.cgroups.tree import CgroupTree
from tests.kits.cgroup import delegated_cgroup, inside, kill_all, members, unit_cgroups
from tests.kits.spawner import PACKAGE, wait_until

TAKE = """\
import json, os, sys
sys.path.insert(0, sys.argv[1])
from runnerd.spawner.cgroups.tree import CgroupTree
cgroups = CgroupTree.set_up(*sys.argv[2:] or [None])
print(json.dumps([cgroups.root, cgroups.why, open("/proc/self/cgroup").read()]))
"""


@pytest.fixture
def root() -> Iterator[Path]:
    with delegated_cgroup() as directory:
        yield directory


@pytest.fixture
def cgroups(root: Path) -> CgroupTree:
    return CgroupTree(root=str(root))


def take_in(directory: Path, *unit: str) -> tuple[str | None, str | None, str]:
    """What a program of ours in that cgroup takes for its own: the root, why not, and where it is afterwards."""
    command = inside(directory, sys.executable, "-I", "-S", "-c", TAKE, str(PACKAGE.parent), *unit)
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=60)
    root, why, text = json.loads(done.stdout)
    return root, why, next(line for line in text.splitlines() if line.startswith("0::"))


# --- what is delegated --------------------------------------------------------------------------------------


@pytest.mark.parametrize("attribute", ["user.delegate", "trusted.delegate"])
def test_delegated(attribute: str) -> None:
    with delegated_cgroup(attribute) as directory:
        root, why, where = take_in(directory)
        assert root == str(directory)
        assert why == "runs are in the spawner's own cgroup, where no controller can be enabled (--cgroup-unit)"
        assert where.endswith(f"/{directory.name}/spawner")


def test_started_in_the_place_of_a_spawner(root: Path) -> None:
    (root / "spawner").mkdir()
    taken, _, where = take_in(root / "spawner")
    assert taken == str(root)
    assert where.endswith(f"/{root.name}/spawner")


def test_not_delegated() -> None:
    with delegated_cgroup(attribute=None) as directory:
        root, why, where = take_in(directory)
        assert root is None
        assert why is not None
        assert "is not delegated" in why
        assert where.endswith(f"/{directory.name}")
        assert not (directory / "spawner").exists()


def test_a_child_of_what_is_delegated_is_not(root: Path) -> None:
    """Such as a run, which may start a spawner of its own."""
    (root / "run-a.0").mkdir()
    taken, why, _ = take_in(root / "run-a.0")
    assert taken is None
    assert why is not None


# --- a unit for runs alone ----------------------------------------------------------------------------------


@pytest.fixture
def units() -> Iterator[Path]:
    """A slice with the units a.service, ours, and runs.service."""
    with unit_cgroups() as directory:
        yield directory


@pytest.mark.parametrize("ours", ["a.service", "a.service/spawner"])
def test_a_unit_for_runs(units: Path, ours: str) -> None:
    (units / ours).mkdir(exist_ok=True)
    root, why, where = take_in(units / ours, "runs.service")
    assert (root, why) == (str(units / "runs.service"), None)
    assert where.endswith(f"/{units.name}/{ours}")  # where the next spawner is put, too


def test_a_unit_for_runs_that_is_not_there(units: Path) -> None:
    root, why, where = take_in(units / "a.service", "other.service")
    assert root == str(units / "a.service")
    assert why == f"there is no cgroup of other.service beside {root} (systemctl start other.service)"
    assert where.endswith(f"/{units.name}/a.service/spawner")


def test_a_unit_for_runs_that_is_not_delegated(units: Path) -> None:
    os.removexattr(units / "runs.service", "user.delegate")
    root, why, _ = take_in(units / "a.service", "runs.service")
    assert root == str(units / "a.service")
    assert why == f"cgroup {units}/runs.service is not delegated (systemd: Delegate=yes)"


def test_neither_is_delegated(units: Path) -> None:
    os.removexattr(units / "a.service", "user.delegate")
    root, why, where = take_in(units / "a.service", "other.service")
    assert root is None
    assert why is not None
    assert why.startswith("there is no cgroup of other.service")
    assert where.endswith(f"/{units.name}/a.service")


# --- one run's ----------------------------------------------------------------------------------------------


DAEMON = """\
import os, signal
os.setsid()
if os.fork() > 0:
    os._exit(0)
print(os.getpid(), flush=True)
signal.pause()
"""


def daemon_in(cgroup: RunCgroup) -> int:
    """The pid of a process there that has no parent, and a session that has lost its leader."""
    command = inside(Path(cgroup.directory), sys.executable, "-I", "-S", "-c", DAEMON)
    with subprocess.Popen(command, stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        pid = int(first.stdout.readline())
        assert first.wait(60) == 0
    return pid


def test_it_knows_who_is_in(cgroups: CgroupTree) -> None:
    cgroup = cgroups.make("run", 0)
    assert cgroup is not None
    assert not cgroup.is_populated()
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import signal; signal.pause()"])
    cgroup.add_process(child.pid)
    assert cgroup.is_populated()
    assert members(Path(cgroup.directory)) == {child.pid}
    assert cgroup.remove() is False
    child.kill()
    child.wait(60)
    wait_until(lambda: not cgroup.is_populated(), "the cgroup to be empty")
    assert cgroup.remove() is True


@pytest.mark.parametrize("kill_file", ["cgroup.kill", "not.in.this.kernel"])
def test_it_kills_what_escaped(cgroups: CgroupTree, kill_file: str) -> None:
    made = cgroups.make("run", 0)
    assert made is not None
    cgroup = RunCgroup(made.directory, kill_file=kill_file)
    first, second = daemon_in(cgroup), daemon_in(cgroup)
    nested = Path(cgroup.directory, "of-the-flow", "deeper")
    nested.mkdir(parents=True)
    (nested / "cgroup.procs").write_text(str(second))
    assert members(Path(cgroup.directory)) == {first, second}
    assert cgroup.is_populated()
    assert set(cgroup.list_pids()) == {first, second}
    cgroup.kill_processes()
    wait_until(lambda: not cgroup.is_populated(), "the cgroup to be empty")
    assert cgroup.remove() is True
    assert not Path(cgroup.directory).exists()


def test_one_that_is_gone(cgroups: CgroupTree) -> None:
    cgroup = cgroups.make("run", 0)
    assert cgroup is not None
    assert cgroup.remove() is True
    assert cgroup.remove() is True
    assert not cgroup.is_populated()
    assert cgroup.count_oom_kills() is None
    assert cgroup.list_pids() == []
    cgroup.kill_processes()


# --- those of a spawner before ------------------------------------------------------------------------------


def test_they_are_found_by_name(cgroups: CgroupTree, root: Path) -> None:
    made = cgroups.make("a.b-c", 3)
    assert made is not None
    assert made.directory == str(root / "run-a.b-c.3")
    later = CgroupTree(root=str(root))
    found = later.find("a.b-c", 3)
    assert found is not None
    assert found.directory == made.directory
    assert later.find("a.b-c", 2) is None
    again = later.make("a.b-c", 3)
    assert again is not None
    assert again.directory == made.directory


def test_the_empty_ones_are_removed(cgroups: CgroupTree, root: Path) -> None:
    empty, lived_in = cgroups.make("empty", 0), cgroups.make("lived-in", 0)
    assert empty is not None
    assert lived_in is not None
    Path(empty.directory, "of-the-flow").mkdir()
    (root / "spawner").mkdir()
    (root / "another").mkdir()
    daemon = daemon_in(lived_in)
    kept = cgroups.make("kept", 0)
    assert kept is not None
    cgroups.remove_empty(keep={kept.directory})
    assert {path.name for path in root.iterdir() if path.is_dir()} == {
        "run-lived-in.0",
        "run-kept.0",
        "spawner",
        "another",
    }
    assert members(Path(lived_in.directory)) == {daemon}
    kill_all(Path(lived_in.directory))
    cgroups.remove_empty(keep=set())
    assert not Path(lived_in.directory).exists()
