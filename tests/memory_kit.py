"""Cgroups for tests that need the kernel to run out of memory, or to delegate; and the reasons where there are none."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

BOUND_BYTES = 64 * 2**20

# Anonymous memory, page by page, until the kernel ends it.
EATER = "hold = []\nwhile True:\n    hold.append(bytearray(2**20))"


def own_cgroup(hierarchy: str) -> str | None:
    """Our cgroup's path in a version 1 hierarchy, or in version 2 for an empty name."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        if hierarchy in names.split(",") and (hierarchy or names == ""):
            return path
    return None


def mounted(kind: str, option: str = "") -> Path | None:
    """Where a file system of that kind, and with that super option, is mounted."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        found, _, options = after.split(" ", 2)
        if found == kind and (not option or option in options.split(",")):
            return Path(before.split(" ")[4])
    return None


def bounded_place() -> Path | str:
    """The directory in which a bounded cgroup can be made, or why there is none."""
    if os.geteuid() != 0:
        return "making a cgroup takes root"
    mount, path = mounted("cgroup", "memory"), own_cgroup("memory")
    if mount is None or path is None:
        return "no version 1 memory controller to bound a process with"
    place = Path(f"{mount}{path}")
    if not place.is_dir():
        return f"{place} is not to be seen from here"
    return place


@contextmanager
def bounded_cgroup() -> Iterator[Path]:
    """A cgroup with 64 MiB, in which nothing is swapped. Skips the test where there can be none."""
    place = bounded_place()
    if isinstance(place, str):
        pytest.skip(place)
    directory = place / f"runnerd-test-{uuid.uuid4().hex}"
    try:
        directory.mkdir()
    except OSError as error:
        pytest.skip(f"cannot make a memory cgroup: {error.strerror}")
    try:
        (directory / "memory.limit_in_bytes").write_text(str(BOUND_BYTES))
        (directory / "memory.swappiness").write_text("0")
        yield directory
    finally:
        directory.rmdir()


def eat_within(directory: Path, python: str) -> list[str]:
    """A command that goes into the cgroup and then eats memory."""
    enter = f'echo $$ > {directory}/cgroup.procs && exec "$@"'
    return ["/bin/sh", "-c", enter, "sh", python, "-I", "-S", "-c", EATER]
