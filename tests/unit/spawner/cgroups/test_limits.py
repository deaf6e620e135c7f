"""A run's limits: what goes into its cgroup, as the kernel wants it written, and what is left to rlimits."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from runnerd.core.process import LaunchSpec
from runnerd.processes.protocol import spec_to_json
from runnerd.spawner.cgroups.limits import choose_cgroup_files, find_enforcers, make_rlimits, write_cgroup_limits
from runnerd.spawner.cgroups.run_cgroup import RunCgroup
from runnerd.spawner.cgroups.tree import CONTROLLERS, CgroupTree
from runnerd.spawner.io.messages import Fields, Launch

ALL = set(CONTROLLERS)
INFINITY = resource.RLIM_INFINITY


def launch(**limits: object) -> Launch:
    given = {"key": "run", "attempt": 0, "argv": ("true",), "environment": {}, "working_directory": "/", "output": "/o"}
    return Launch(Fields(spec_to_json(LaunchSpec(**{**given, **limits})), "spec"))  # type: ignore[arg-type]


def like_the_kernels(directory: Path, *controllers: str, enabled: tuple[str, ...] = ()) -> Path:
    """A directory with the files of a cgroup; a file that is not there cannot be written, as in the kernel's."""
    directory.mkdir(exist_ok=True)
    (directory / "cgroup.controllers").write_text(" ".join(controllers))
    (directory / "cgroup.subtree_control").write_text(" ".join(enabled))
    (directory / "cgroup.procs").write_text("")
    return directory


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, {}),
        ({"memory_max_bytes": 2**30}, {"memory_max": {"memory.oom.group": "1", "memory.max": "1073741824"}}),
        ({"cpu_quota_percent": 150.0}, {"cpu_quota": {"cpu.max": "150000 100000"}}),
        ({"cpu_quota_percent": 0.01}, {"cpu_quota": {"cpu.max": "1000 100000"}}),  # the kernel takes no less
        ({"tasks_max": 64}, {"tasks_max": {"pids.max": "64"}}),
        ({"tasks_max": 2**40}, {"tasks_max": {"pids.max": "4194304"}}),  # nor more
    ],
)
def test_what_is_written(limits: dict[str, object], expected: dict[str, dict[str, str]]) -> None:
    assert choose_cgroup_files(launch(**limits), ALL) == expected
    assert choose_cgroup_files(launch(**limits), set()) == {}


def test_limits_are_in_the_cgroup(tmp_path: Path) -> None:
    for name in ("memory.max", "memory.oom.group", "cpu.max", "pids.max"):
        (tmp_path / name).write_text("")
    asked = launch(memory_max_bytes=4096, cpu_quota_percent=50.0, tasks_max=7)
    assert write_cgroup_limits(RunCgroup(str(tmp_path)), asked, ALL) == []
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {"memory.max": "4096", "memory.oom.group": "1", "cpu.max": "50000 100000", "pids.max": "7"}
    assert make_rlimits(asked, user_counts=True) == []


def test_what_cannot_be_written_is_left_to_rlimits(tmp_path: Path) -> None:
    (tmp_path / "pids.max").write_text("")
    asked = launch(memory_max_bytes=4096, cpu_quota_percent=50.0, tasks_max=7)
    failed = write_cgroup_limits(RunCgroup(str(tmp_path)), asked, ALL)
    assert failed == ["memory_max (No such file or directory)", "cpu_quota (No such file or directory)"]
    assert make_rlimits(asked, user_counts=True) == [("data", resource.RLIMIT_DATA, 4096, 4096)]


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({}, (2**20, 2**20)),
        ({"data": (2**30, 2**30)}, (2**20, 2**20)),
        ({"data": (2**10, 2**30)}, (2**10, 2**20)),
        ({"data": (2**10, 2**11)}, (2**10, 2**11)),
        ({"data": (-1, -1)}, (2**20, 2**20)),
    ],
)
def test_the_lower_one_wins(own: dict[str, tuple[int, int]], expected: tuple[int, int]) -> None:
    asked = launch(memory_max_bytes=2**20, rlimits={**own, "nofile": (10, 20)})
    found = {name: (soft, hard) for name, _, soft, hard in make_rlimits(asked, user_counts=True)}
    assert found == {"data": expected, "nofile": (10, 20)}


def test_own_rlimits_alone_are_as_they_were_said() -> None:
    assert make_rlimits(launch(rlimits={"data": (5, -1)}), user_counts=True) == [
        ("data", resource.RLIMIT_DATA, 5, INFINITY)
    ]


def test_tasks_are_counted_only_where_the_user_is_the_runs() -> None:
    asked = launch(tasks_max=9)
    ((name, number, soft, _),) = make_rlimits(asked, user_counts=True)
    assert (name, number, soft) == ("nproc", resource.RLIMIT_NPROC, 9)
    assert make_rlimits(asked, user_counts=False) == []


def test_by_what_limits_are_kept() -> None:
    assert find_enforcers(ALL) == {"memory_max": "cgroup", "cpu_quota": "cgroup", "tasks_max": "cgroup"}
    assert find_enforcers({"pids"}) == {"memory_max": "rlimit", "cpu_quota": None, "tasks_max": "cgroup"}


# --- the controllers -----------------------------------------------------------------------------------------


def test_controllers_are_enabled(tmp_path: Path) -> None:
    root = like_the_kernels(tmp_path / "runs", "cpuset", "cpu", "io", "memory", "pids", enabled=("memory", "cpu"))
    assert CgroupTree(root=str(root)).enable_controllers() == ALL
    assert (root / "cgroup.subtree_control").read_text().startswith("+pids")
    assert not (root / "keeper").exists()


def test_controllers_that_are_not_there(tmp_path: Path) -> None:
    root = like_the_kernels(tmp_path / "runs", "cpu", "io", enabled=("cpu", "io"))
    assert CgroupTree(root=str(root)).enable_controllers() == {"cpu"}


def test_no_controllers_where_we_may_not_enable_them(tmp_path: Path) -> None:
    """In our own unit's, that is: systemd could not start the next spawner there."""
    root = like_the_kernels(tmp_path / "own", *CONTROLLERS)
    assert CgroupTree(root=str(root), why="it is our own").enable_controllers() == set()
    assert (root / "cgroup.subtree_control").read_text() == ""


def test_what_keeps_the_unit_up_makes_way(tmp_path: Path) -> None:
    root = like_the_kernels(tmp_path / "runs", *CONTROLLERS)
    (root / "cgroup.procs").write_text("4711\n0\n")
    like_the_kernels(root / "keeper")
    assert CgroupTree(root=str(root)).enable_controllers() == ALL
    assert (root / "keeper" / "cgroup.procs").read_text() == "4711"


def test_a_unit_that_is_gone(tmp_path: Path) -> None:
    cgroups = CgroupTree(root=str(tmp_path / "gone"))
    assert cgroups.enable_controllers() == set()
    like_the_kernels(tmp_path / "gone", *CONTROLLERS)
    assert cgroups.enable_controllers() == ALL  # systemd started it again


def test_what_an_earlier_spawner_left_in_its_own_unit(tmp_path: Path) -> None:
    own, runs = tmp_path / "own", tmp_path / "runs"
    (own / "run-old.1").mkdir(parents=True)
    (own / "run-empty.1").mkdir()
    (runs / "run-new.1").mkdir(parents=True)
    cgroups = CgroupTree(root=str(runs), older=(str(own),))
    old, new = cgroups.find("old", 1), cgroups.find("new", 1)
    assert old is not None
    assert new is not None
    assert (old.directory, new.directory) == (str(own / "run-old.1"), str(runs / "run-new.1"))
    cgroups.remove_empty(keep={old.directory})
    assert sorted(path.name for path in tmp_path.glob("*/*")) == ["run-old.1"]
