"""Runs in cgroups of their own: in before they begin, all gone when they end, found again by a later spawner."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from runnerd.core.process import Identity
from runnerd.processes.protocol import Record
from runnerd.spawner.proc.identity import is_alive
from tests.kits.cgroup import delegated_cgroup, inside, members
from tests.kits.spawner import SYSTEM_PYTHON, Link, SpawnerUnderTest, needs_system_python, wait_until


@pytest.fixture
def root() -> Iterator[Path]:
    with delegated_cgroup() as directory:
        yield directory


def start_in(root: Path, spawner: SpawnerUnderTest) -> None:
    spawner.start(through=tuple(inside(root)))


def start_in_as(user: str, root: Path, spawner: SpawnerUnderTest) -> None:
    """Into the cgroup, then the user: that one may not go there by itself. It gets a program that it may read."""
    program = f'shift 4; exec {SYSTEM_PYTHON} -I -S {spawner.public_package()}/spawner/__main__.py "$@"'
    spawner.start(through=tuple(inside(root, "/bin/sh", "-c", program, "sh", user=user)))


@pytest.fixture
def delegated(root: Path, idle_spawner: SpawnerUnderTest) -> SpawnerUnderTest:
    start_in(root, idle_spawner)
    return idle_spawner


def runs_in(root: Path) -> set[str]:
    return {path.name for path in root.iterdir() if path.is_dir()} - {"spawner"}


async def begin(link: Link, spawner: SpawnerUnderTest, *mode: str, **settings: object) -> Identity:
    record = await link.client.spawn(spawner.spec("run", mode=mode, **settings))
    await asyncio.to_thread(spawner.wait_for_output, "run")
    assert record.identity is not None
    return record.identity


async def cancel(link: Link, leader: Identity) -> None:
    await link.client.stop(key="run", attempt=0, reason="cancel")


async def kill(link: Link, leader: Identity) -> None:
    await link.client.stop(key="run", attempt=0, reason="cancel", timeout_s=0)


async def die(link: Link, leader: Identity) -> None:
    os.kill(leader.pid, signal.SIGKILL)


async def nothing(link: Link, leader: Identity) -> None:
    """It ends by itself."""


End = Callable[[Link, Identity], Awaitable[None]]


def assert_nothing_left(root: Path, spawner: SpawnerUnderTest) -> None:
    assert runs_in(root) == set()
    assert spawner.processes_of("run") == []
    assert "cannot kill all of its processes" not in spawner.said()
    assert "Traceback" not in spawner.said()


async def test_a_run_begins_in_it(delegated: SpawnerUnderTest, root: Path) -> None:
    script = 'grep ^0:: /proc/self/cgroup; read forever < "$1"'
    os.mkfifo(delegated.home / "fifo")
    async with delegated.link() as link:
        argv = ("/bin/sh", "-c", script, "sh", str(delegated.home / "fifo"))
        record = await link.client.spawn(delegated.spec("run", *argv))
        assert record.identity is not None
        said = await asyncio.to_thread(delegated.wait_for_output, "run", "0::")
        assert said.strip().endswith(f"/{root.name}/run-run.0")
        assert record.identity.pid in members(root / "run-run.0")
        assert delegated.process is not None
        assert members(root / "spawner") == {delegated.process.pid}
        await kill(link, record.identity)
        await link.until("run", "exited")
    assert_nothing_left(root, delegated)


@pytest.mark.parametrize(
    ("end", "stay", "by"),
    [(cancel, ["stay"], 15), (kill, ["stay"], 9), (die, ["stay"], 9), (nothing, [], None)],
    ids=["cancel", "now", "killed-by-somebody", "by-itself"],
)
async def test_all_of_it_ends(
    delegated: SpawnerUnderTest, root: Path, end: End, stay: list[str], by: int | None
) -> None:
    async with delegated.link() as link:
        leader = await begin(link, delegated, "escape", "run", *stay)
        await end(link, leader)
        record = await link.until("run", "exited")
    assert record.exit is not None
    assert (record.exit.signal, record.exit.oom) == (by, False)
    assert_nothing_left(root, delegated)


async def test_cgroups_that_a_flow_makes(delegated: SpawnerUnderTest, root: Path) -> None:
    inner = root / "run-run.0" / "of-the-flow"
    script = f"mkdir {inner}; sh -c 'echo $$ > {inner}/cgroup.procs; echo ready; exec sleep 1000' run & wait"
    async with delegated.link() as link:
        record = await link.client.spawn(delegated.spec("run", "/bin/sh", "-c", script))
        assert record.identity is not None
        await asyncio.to_thread(delegated.wait_for_output, "run")
        assert len(members(inner)) == 1
        await kill(link, record.identity)
        await link.until("run", "exited")
    assert_nothing_left(root, delegated)


async def test_one_that_cannot_start(delegated: SpawnerUnderTest, root: Path) -> None:
    async with delegated.link() as link:
        answer = await link.client.spawn(delegated.spec("run", "/nowhere/python"))
        assert answer.error is not None
        assert answer.error.stage == "exec"
    assert_nothing_left(root, delegated)


async def test_a_host_that_allows_no_more(root: Path, idle_spawner: SpawnerUnderTest) -> None:
    """The run goes without, and all of it ends as it would anywhere."""
    (root / "cgroup.max.descendants").write_text("1")
    start_in(root, idle_spawner)
    async with idle_spawner.link() as link:
        leader = await begin(link, idle_spawner, "escape", "run", "stay")
        assert runs_in(root) == set()
        await cancel(link, leader)
        await link.until("run", "exited")
    assert "cannot make cgroup" in idle_spawner.said()
    assert_nothing_left(root, idle_spawner)


def test_a_host_that_delegates_nothing(idle_spawner: SpawnerUnderTest) -> None:
    with delegated_cgroup(attribute=None) as root:
        start_in(root, idle_spawner)
        assert "runs get no cgroups: " in idle_spawner.said()
        assert idle_spawner.process is not None
        assert members(root) == {idle_spawner.process.pid}
        assert idle_spawner.end() == 0


# --- a later spawner ----------------------------------------------------------------------------------------


async def lose(delegated: SpawnerUnderTest, *mode: str) -> Identity:
    """A run whose spawner is gone."""
    async with delegated.link() as link:
        leader = await begin(link, delegated, *mode)
    delegated.end(signal.SIGKILL)
    return leader


async def finish(spawner: SpawnerUnderTest, leader: Identity, end: End) -> Record:
    async with spawner.link() as link:
        await end(link, leader)
        return await link.until("run", "exited")


@pytest.mark.parametrize("mode", [("escape", "run", "stay"), ("run-away", "run")], ids=["daemon", "run-away"])
@pytest.mark.parametrize("end", [cancel, kill, die])
async def test_taken_over(delegated: SpawnerUnderTest, root: Path, mode: tuple[str, ...], end: End) -> None:
    leader = await lose(delegated, *mode)
    start_in(root, delegated)
    assert runs_in(root) == {"run-run.0"}
    await finish(delegated, leader, end)
    assert_nothing_left(root, delegated)


async def test_leader_that_died_while_there_was_no_spawner(delegated: SpawnerUnderTest, root: Path) -> None:
    """Also its daemon that has nothing by which to tell whose it is."""
    leader = await lose(delegated, "escape", "run", "stay")
    os.kill(leader.pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(leader.pid), "the leader to be dead")
    assert len(delegated.processes_of("run")) == 2
    start_in(root, delegated)
    await finish(delegated, leader, nothing)
    assert_nothing_left(root, delegated)


async def test_what_is_left_of_others(delegated: SpawnerUnderTest, root: Path) -> None:
    """Empty cgroups go. A run whose record cannot be read is not ended for that."""
    leader = await lose(delegated, "wait")
    (delegated.records / "run.0.json").write_text("no record")
    (root / "run-old.0" / "of-the-flow").mkdir(parents=True)
    start_in(root, delegated)
    assert runs_in(root) == {"run-run.0"}
    assert "run-run.0: a process of an unknown run lives there" in delegated.said()
    assert is_alive(leader.pid)


@needs_system_python
async def test_delegated_to_a_user(idle_spawner: SpawnerUnderTest, root: Path) -> None:
    for path in (root, root / "cgroup.procs", root / "cgroup.subtree_control"):
        shutil.chown(path, "nobody")
    shutil.chown(idle_spawner.home, "nobody")
    start_in_as("nobody", root, idle_spawner)
    assert f"runs get cgroups in {root}" in idle_spawner.said()
    async with idle_spawner.link() as link:
        leader = await begin(link, idle_spawner, "escape", "run", "stay", user="nobody")
        assert len(members(root / "run-run.0")) == 3
        await cancel(link, leader)
        await link.until("run", "exited")
    assert_nothing_left(root, idle_spawner)
