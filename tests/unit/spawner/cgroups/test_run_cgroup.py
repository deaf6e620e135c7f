"""Finding one's cgroup in what the kernel says of it."""

from __future__ import annotations

from pathlib import Path

from runnerd.spawner.cgroups.delegation import mounts, own_path
from runnerd.spawner.cgroups.run_cgroup import RunCgroup
from runnerd.spawner.cgroups.tree import CgroupTree

HYBRID = """\
9:name=systemd:/
4:memory:/a
0::/system.slice/runnerd-spawner.service
"""
MOUNTS = r"""31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,nosuid shared:9 master:4 - cgroup2 cgroup2 rw,nsdelegate
42 31 0:38 /a\040b /mnt/a\040\134b rw - cgroup2 none rw
"""


def test_own_path() -> None:
    assert own_path(HYBRID.splitlines()) == "/system.slice/runnerd-spawner.service"
    assert own_path(["0::/"]) == "/"
    assert own_path(["4:memory:/a", "1:name=systemd:/"]) is None


def test_mounts() -> None:
    assert mounts(MOUNTS.splitlines()) == [("/", "/sys/fs/cgroup/unified"), ("/a b", "/mnt/a \\b")]


def test_kills_for_memory(tmp_path: Path) -> None:
    cgroup = RunCgroup(str(tmp_path))
    assert cgroup.count_oom_kills() is None
    (tmp_path / "memory.events").write_text("low 0\nhigh 0\nmax 1180\noom 12\noom_kill 3\noom_group_kill 0\n")
    assert cgroup.count_oom_kills() == 3
    assert not cgroup.was_oom_group_killed()
    (tmp_path / "memory.events").write_text("oom_kill 3\noom_group_kill 1\n")
    assert cgroup.was_oom_group_killed()


def test_without_delegation() -> None:
    cgroups = CgroupTree(root=None, why="it is not delegated")
    assert cgroups.make("run", 0) is None
    assert cgroups.find("run", 0) is None
    cgroups.remove_empty(keep=set())


def test_a_place_where_none_can_be_made(tmp_path: Path) -> None:
    cgroups = CgroupTree(root=str(tmp_path / "gone"))
    assert cgroups.make("run", 0) is None
    assert cgroups.find("run", 0) is None
    cgroups.remove_empty(keep=set())
