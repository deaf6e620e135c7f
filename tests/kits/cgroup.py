"""Cgroups for tests that need the kernel to run out of memory, or to delegate; and the reasons where there are none."""

from __future__ import annotations

import os
import pwd
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runnerd.spawner.cgroups.oom import KernelLog

BOUND_BYTES = 64 * 2**20
LIMIT_S = 60.0

# Anonymous memory, page by page, until the kernel ends it.
EATER = "hold = []\nwhile True:\n    hold.append(bytearray(2**20))"

# Goes into a cgroup, becomes a user if one is named, and becomes the command.
ENTER = """\
import os, sys
directory, uid, gid, *command = sys.argv[1:]
with open(directory + "/cgroup.procs", "w") as file:
    file.write("0")
if uid:
    os.setgroups([]), os.setgid(int(gid)), os.setuid(int(uid))
os.execv(command[0], command)
"""


def inside(directory: Path, *command: str, user: str | None = None) -> list[str]:
    """The command that runs `command` in that cgroup."""
    account = None if user is None else pwd.getpwnam(user)
    ids = ("", "") if account is None else (str(account.pw_uid), str(account.pw_gid))
    return [sys.executable, "-I", "-S", "-c", ENTER, str(directory), *ids, *command]


def eater_in(directory: Path) -> list[str]:
    return inside(directory, sys.executable, "-I", "-S", "-c", EATER)


def own_cgroup(controller: str) -> str | None:
    """Our cgroup's path in a version 1 hierarchy, or in version 2 for an empty name."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        if controller in names.split(","):
            return path
    return None


def mounted(kind: str, option: str | None = None) -> str | None:
    """Where a file system of that kind, and with that super option, is mounted."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        found, _, options = after.split(" ", 2)
        if found == kind and (option is None or option in options.split(",")):
            return before.split(" ")[4]
    return None


def make_below(place: str | None, path: str | None, what: str) -> Path:
    """A cgroup below our own. Skips the test where there can be none."""
    if os.geteuid() != 0:
        pytest.skip("making a cgroup takes root")
    if place is None or path is None:
        pytest.skip(f"this system has no {what}")
    directory = Path(f"{place}{path}") / f"runnerd-test-{uuid.uuid4().hex}"
    try:
        directory.mkdir()
    except OSError as error:
        pytest.skip(f"cannot make a cgroup: {error}")
    return directory


def skip_without_kernel_log() -> None:
    log = KernelLog.open()
    readable = log.next_number() is not None
    log.close()
    if not readable:
        pytest.skip("the kernel's log cannot be read here")


@contextmanager
def bounded_cgroup() -> Iterator[Path]:
    """A cgroup with 64 MiB, in which nothing is swapped."""
    directory = make_below(mounted("cgroup", "memory"), own_cgroup("memory"), "version 1 memory controller")
    try:
        (directory / "memory.limit_in_bytes").write_text(str(BOUND_BYTES))
        (directory / "memory.swappiness").write_text("0")
        yield directory
    finally:
        directory.rmdir()


@contextmanager
def delegated_cgroup(attribute: str | None = "user.delegate") -> Iterator[Path]:
    """A cgroup with the mark that systemd sets. What lives in it at the end is killed."""
    directory = make_below(mounted("cgroup2"), own_cgroup(""), "cgroup v2")
    try:
        if attribute is not None:
            os.setxattr(directory, attribute, b"1")
        yield directory
    finally:
        clear(directory)


@contextmanager
def unit_cgroups(ours: str = "a.service", runs: str = "runs.service") -> Iterator[Path]:
    """A slice with the delegated cgroups of two units: the spawner's, and the runs'."""
    with delegated_cgroup(attribute=None) as directory:
        for name in (ours, runs):
            (directory / name).mkdir()
            os.setxattr(directory / name, "user.delegate", b"1")
        yield directory


def clear(directory: Path) -> None:
    for path in sorted(directory.rglob("cgroup.procs"), key=lambda found: -len(found.parts)):
        kill_all(path.parent)
        path.parent.rmdir()


def kill_all(directory: Path) -> None:
    (directory / "cgroup.kill").write_text("1")
    end = time.monotonic() + LIMIT_S
    while "populated 1" in (directory / "cgroup.events").read_text():
        assert time.monotonic() < end, f"{directory} is not empty after {LIMIT_S} s"
        time.sleep(0.005)


def members(directory: Path) -> set[int]:
    return {int(pid) for path in directory.rglob("cgroup.procs") for pid in path.read_text().split()}
