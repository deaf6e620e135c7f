"""spawner.py: the spawner's version, its limits and its open files."""

from __future__ import annotations

import os
import resource
from dataclasses import replace

import pytest

from runnerd import __version__
from runnerd.doctor.spawner import check_files, check_limits, check_spawner, open_files_of
from runnerd.processes.protocol import Hello
from runnerd.processes.upgrading import WantedSpawner
from runnerd.spawner.child.users import AllowedUsers
from tests.kits.checks import a_source, state_and_words

WANTED = WantedSpawner(version=__version__, build="5eed0001", users=AllowedUsers("etl,report", root=True, owner=7))


def hello(*limits: str | None, version: str = __version__, why: str | None = None, users: str = "report,etl") -> Hello:
    names = ("memory_max", "cpu_quota", "tasks_max")
    return Hello(
        version=version,
        pid=7,
        limits=dict(zip(names, limits, strict=False)),
        why=why,
        build="5eed0001",
        users=AllowedUsers(users, root=True, owner=0),
    )


def test_the_spawner_s_version() -> None:
    state_and_words(check_spawner(hello(), WANTED, managed=True), "ok", "connected", "pid 7")
    old = check_spawner(hello(version="0.0.1"), WANTED, managed=True)
    state_and_words(old, "warning", f"version 0.0.1 differs from runnerd's {__version__}", "runnerctl drain")
    assert check_spawner(None, WANTED, managed=True).state == "unknown"


@pytest.mark.parametrize("build", ["01d00001", None])
def test_a_spawner_of_other_code_and_the_same_version(build: str | None) -> None:
    check = check_spawner(replace(hello(), build=build), WANTED, managed=True)
    state_and_words(check, "warning", f"its code (build {build or 'unknown'}) is not", "replaced when no run is live")
    unreadable = replace(WANTED, build=None)
    assert check_spawner(replace(hello(), build=build), unreadable, managed=True).state == "ok"


def test_users_that_differ() -> None:
    other = hello(users="etl,*")
    words = "the spawner starts processes as etl,*, but RUNNERD_FLOW_USERS of runnerd says etl,report"
    state_and_words(check_spawner(other, WANTED, managed=True), "warning", words, "systemctl edit")
    state_and_words(check_spawner(other, WANTED, managed=False), "warning", words, "replaced when no run is live")
    for unknown in (replace(WANTED, users=None), WANTED):
        told = other if unknown.users is None else replace(other, users=None)
        assert check_spawner(told, unknown, managed=True).state == "ok"


def test_limits() -> None:
    capped = a_source("capped", cpu_quota_percent=50.0, memory_max_bytes=2**20)
    all_well = check_limits(hello("cgroup", "cgroup", "cgroup"), [capped], managed=True)
    state_and_words(all_well, "ok", "to each run as a whole")
    weak = hello("rlimit", None, "rlimit", why="no cgroup is delegated")
    check = check_limits(weak, [a_source("nightly")], managed=False)
    words = ("memory_max applies to each process separately", "cpu_quota has no effect", "no cgroup is delegated")
    state_and_words(check, "warning", *words, "Delegate=yes")
    in_vain = check_limits(weak, [capped], managed=True)
    state_and_words(in_vain, "error", "capped sets cpu_quota, but ", "cgroup.controllers", "or remove these keys")
    both = check_limits(weak, [capped, replace(capped, name="other")], managed=False)
    state_and_words(both, "error", "capped, other set cpu_quota, but ")
    assert check_limits(hello(), [capped], managed=True).state == "unknown"
    assert check_limits(None, [], managed=True).state == "unknown"


def test_open_files() -> None:
    state_and_words(check_files({"runnerd": 1024, "runnerd-spawner": 1024}, 100), "ok", "limits.runs 100")
    state_and_words(check_files({"runnerd": resource.RLIM_INFINITY}, 10**6), "ok")
    short = check_files({"runnerd": 65536, "runnerd-spawner": 1024}, 1000)
    state_and_words(
        short, "error", "runnerd-spawner may open 1024 files", "LimitNOFILE=65536 for runnerd-spawner.service"
    )
    assert open_files_of(os.getpid()) == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert open_files_of(2**22 + 1) is None
