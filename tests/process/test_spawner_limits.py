"""Runs held to their limits: by their cgroup where its controllers are there, else process by process."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runnerd.core.process import Identity
from runnerd.processes.protocol import Hello, Record
from runnerd.spawner.proc.identity import is_alive
from tests.kits.cgroup import EATER, clear, inside, make_below, members, mounted, unit_cgroups
from tests.kits.spawner import SYSTEM_PYTHON, SpawnerUnderTest, needs_root, needs_system_python, wait_until

MIB = 2**20

# Says whether it got so many MiB, and which limits it has.
TAKES = """\
import resource, sys
try:
    bytearray(int(sys.argv[1]) * 2**20)
    print("got it")
except MemoryError:
    print("MemoryError")
for name in ("DATA", "AS", "NPROC"):
    print(name, *resource.getrlimit(getattr(resource, "RLIMIT_" + name)))
"""

# Forks until it may no more, at most a hundred times.
FORKS = """\
import os, signal
for number in range(100):
    try:
        if os.fork() == 0:
            signal.pause()
    except OSError as error:
        print("forked", number, error.strerror)
        break
else:
    print("forked 100")
"""

# Has a child in a session of its own, and once it is told to, another that eats.
FAMILY = f"""\
import os, signal
def eat(number, frame):
    if os.fork() == 0:
        exec({EATER!r})
signal.signal(signal.SIGUSR1, eat)
if os.fork() == 0:
    os.setsid()
    os.write(1, b"ready\\n")
while True:
    signal.pause()
"""

# Works for two seconds, and says how often the kernel kept it from that.
WORKS = """\
import time
until = time.monotonic() + 2
while time.monotonic() < until:
    pass
path = open("/proc/self/cgroup").read().split("0::")[1].splitlines()[0]
for name in ("cpu.max", "cpu.stat"):
    print(open("%s" + path + "/" + name).read())
"""


def python(program: str, *arguments: object) -> tuple[str, ...]:
    return (SYSTEM_PYTHON, "-I", "-S", "-c", program, *map(str, arguments))


async def hello(spawner: SpawnerUnderTest) -> Hello:
    async with spawner.link() as link:
        assert link.client.hello is not None
        return link.client.hello


async def run(spawner: SpawnerUnderTest, argv: tuple[str, ...], **settings: object) -> Record:
    async with spawner.link() as link:
        await link.client.spawn(spawner.spec("run", *argv, **settings))
        return await link.until("run", "exited")


# --- by rlimit ----------------------------------------------------------------------------------------------


async def test_what_it_can_give_without_cgroups(spawner: SpawnerUnderTest) -> None:
    told = await hello(spawner)
    assert told.limits["memory_max"] == "rlimit"
    assert told.limits["cpu_quota"] is None
    assert told.limits["tasks_max"] == ("rlimit" if os.geteuid() == 0 else None)
    assert told.why
    assert told.why in spawner.said()


@needs_system_python
@pytest.mark.parametrize(
    ("settings", "words", "data"),
    [
        ({"memory_max_bytes": 200 * MIB}, "MemoryError", 200 * MIB),
        ({"memory_max_bytes": 2000 * MIB}, "got it", 2000 * MIB),
        ({"memory_max_bytes": 2000 * MIB, "rlimits": {"data": (150 * MIB, 150 * MIB)}}, "MemoryError", 150 * MIB),
        ({"memory_max_bytes": 150 * MIB, "rlimits": {"data": (2000 * MIB, -1)}}, "MemoryError", 150 * MIB),
    ],
)
async def test_memory_of_each_process(
    spawner: SpawnerUnderTest, settings: dict[str, object], words: str, data: int
) -> None:
    await run(spawner, python(TAKES, 500), **settings)
    said = spawner.output("run").splitlines()
    assert said[0] == words
    assert f"DATA {data} {data}" in said
    assert "AS -1 -1" in said  # libraries and reservations are free


@needs_root
@needs_system_python
async def test_tasks_of_another_user(spawner: SpawnerUnderTest) -> None:
    await run(spawner, python(FORKS), user="games", tasks_max=5)
    assert spawner.output("run").startswith("forked 4 ")


@needs_root
async def test_tasks_that_its_user_has_besides(spawner: SpawnerUnderTest) -> None:
    """An rlimit counts them all, and then not even the run itself has room."""
    async with spawner.link() as link:
        for key in ("first", "second"):
            await link.client.spawn(spawner.spec(key, "sleep", "1000", user="games", tasks_max=9))
        record = await link.client.spawn(spawner.spec("third", "sleep", "1000", user="games", tasks_max=1))
        for key in ("first", "second"):
            await link.client.stop(key=key, attempt=0, reason="cancel", timeout_s=0)
            await link.until(key, "exited")
        record = record
    assert record.error is not None
    words = "cannot start: user games has as many processes as tasks_max or rlimits.nproc of the run allows"
    assert (record.error.stage, record.error.message) == ("exec", words)


@needs_system_python
async def test_tasks_of_the_spawners_own_user_are_not_counted(spawner: SpawnerUnderTest) -> None:
    """Or nobody could start a process as that user any more, the spawner itself included."""
    await run(spawner, python(TAKES, 1), tasks_max=1)
    assert "NPROC 1 1" not in spawner.output("run")
    assert spawner.output("run").startswith("got it")


# --- by cgroup ------------------------------------------------------------------------------------------------


@pytest.fixture
def units(idle_spawner: SpawnerUnderTest) -> Iterator[Path]:
    with unit_cgroups() as directory:
        yield directory


def start_in(units: Path, spawner: SpawnerUnderTest, *extra: str) -> None:
    through = ("/bin/sh", "-c", 'umask 77; exec "$@"', "sh", *inside(units / "a.service"))
    spawner.start(*(extra or ("--cgroup-unit", "runs.service")), through=through)


async def begin(spawner: SpawnerUnderTest, *argv: str, **settings: object) -> Identity:
    async with spawner.link() as link:
        record = await link.client.spawn(spawner.spec("run", *(argv or ("sleep", "1000")), **settings))
        assert record.identity is not None
        return record.identity


async def end(spawner: SpawnerUnderTest) -> Record:
    async with spawner.link() as link:
        await link.client.stop(key="run", attempt=0, reason="cancel", timeout_s=0)
        return await link.until("run", "exited")


async def test_runs_are_in_their_own_unit(units: Path, idle_spawner: SpawnerUnderTest) -> None:
    start_in(units, idle_spawner)
    assert idle_spawner.process is not None
    leader = await begin(idle_spawner)
    place = units / "runs.service" / "run-run.0"
    assert place.stat().st_mode & 0o777 == 0o755
    assert members(place) == {leader.pid}
    assert members(units / "a.service") == {idle_spawner.process.pid}
    await end(idle_spawner)
    assert not place.exists()


@pytest.mark.parametrize("before", [("--cgroup-unit", "runs.service"), ("--exit-when-idle",)], ids=["there", "own"])
async def test_found_again_by_the_next_spawner(
    units: Path, idle_spawner: SpawnerUnderTest, before: tuple[str, ...]
) -> None:
    """Also what one that knew of no unit for runs left in its own."""
    start_in(units, idle_spawner, *before)
    argv = (sys.executable, "-I", "-S", str(idle_spawner.child_script), "escape", "run", "stay")
    leader = await begin(idle_spawner, *argv)
    idle_spawner.wait_for_output("run")
    idle_spawner.end(signal.SIGKILL)
    os.kill(leader.pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(leader.pid), "the leader to be dead")
    assert idle_spawner.processes_of("run")
    start_in(units, idle_spawner)
    async with idle_spawner.link() as link:
        await link.until("run", "exited")
    assert idle_spawner.processes_of("run") == []
    assert list(units.glob("*/run-*")) == []


async def test_one_that_is_refused_leaves_no_cgroup(units: Path, idle_spawner: SpawnerUnderTest) -> None:
    idle_spawner.start(
        "--cgroup-unit",
        "runs.service",
        program=("spawner-cannot-record",),
        through=tuple(inside(units / "a.service")),
    )
    with pytest.raises(Exception, match="cannot write its record"):
        await begin(idle_spawner)
    assert list(units.glob("*/run-*")) == []


# --- by cgroup, with its controllers ------------------------------------------------------------------------


@pytest.fixture
def bounding(idle_spawner: SpawnerUnderTest) -> Iterator[SpawnerUnderTest]:
    """A spawner beside a unit for runs with all controllers; below the root, where no process is in the way of them."""
    slice_ = make_below(mounted("cgroup2"), "/", "cgroup v2")
    try:
        missing = {"memory", "cpu", "pids"} - set((slice_ / "cgroup.controllers").read_text().split())
        if missing:
            pytest.skip(f"cgroup v2 has no controller {', '.join(sorted(missing))} here")
        (slice_ / "cgroup.subtree_control").write_text("+memory +cpu +pids")
        for name in ("a.service", "runs.service"):
            (slice_ / name).mkdir()
            os.setxattr(slice_ / name, "user.delegate", b"1")
        start_in(slice_, idle_spawner)
        yield idle_spawner
        idle_spawner.clear()
    finally:
        clear(slice_)


def cgroup_of(leader: Identity) -> Path:
    path = Path(f"/proc/{leader.pid}/cgroup").read_text().split("0::")[1].splitlines()[0]
    return Path(f"{mounted('cgroup2')}{path}")


async def test_all_are_kept(bounding: SpawnerUnderTest) -> None:
    told = await hello(bounding)
    assert told.limits == {"memory_max": "cgroup", "cpu_quota": "cgroup", "tasks_max": "cgroup"}
    assert told.why is None


@needs_system_python
async def test_tasks_of_the_run(bounding: SpawnerUnderTest) -> None:
    await run(bounding, python(FORKS), tasks_max=5)
    assert bounding.output("run").startswith("forked 4 ")


@needs_system_python
async def test_processor_time_of_the_run(bounding: SpawnerUnderTest) -> None:
    await run(bounding, python(WORKS % mounted("cgroup2")), cpu_quota_percent=20.0)
    counts = dict(line.split() for line in bounding.output("run").splitlines() if line)
    assert counts["20000"] == "100000"
    assert int(counts["nr_throttled"]) > 0


@needs_system_python
@pytest.mark.parametrize("taken_over", [False, True])
async def test_too_much_memory_ends_all_of_the_run_and_no_other(bounding: SpawnerUnderTest, taken_over: bool) -> None:
    async with bounding.link() as link:
        found = []
        for key in ("eater", "other"):
            spec = bounding.spec(key, *python(FAMILY), memory_max_bytes=40 * MIB)
            record = await link.client.spawn(spec)
            await asyncio.to_thread(bounding.wait_for_output, key)
            assert record.identity is not None
            found.append(record.identity)
        (eater, other) = found[0], found[1]
    place = cgroup_of(eater)
    assert (place / "memory.max").read_text() == f"{40 * MIB}\n"
    if taken_over:
        bounding.end(signal.SIGKILL)
        bounding.start("--cgroup-unit", "runs.service", through=tuple(inside(place.parent.parent / "a.service")))
    os.kill(eater.pid, signal.SIGUSR1)
    async with bounding.link() as link:
        record = await link.until("eater", "exited")
    assert record.exit is not None
    assert (record.exit.signal, record.exit.oom) == (signal.SIGKILL, True)
    assert not place.exists()
    assert other.pid in members(cgroup_of(other))
    assert len(members(cgroup_of(other))) == 2
