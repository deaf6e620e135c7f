"""What called setsid, or daemonized, is gone with its run too; and nothing else is."""

from __future__ import annotations

import asyncio
import os
import pwd
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest

from runnerd.core.process import Identity
from runnerd.spawner.proc.identity import is_alive
from tests.kits.spawner import (
    SYSTEM_PYTHON,
    Link,
    SpawnerUnderTest,
    assert_nothing_left,
    command_of,
    needs_root,
    needs_system_python,
    wait_until,
)


async def start(link: Link, spawner: SpawnerUnderTest, mode: str, key: str, *more: str, **settings: object) -> Identity:
    record = await link.client.spawn(spawner.spec(key, mode=(mode, key, *more), **settings))
    await asyncio.to_thread(spawner.wait_for_output, key)
    assert record.identity is not None
    return record.identity


async def cancel(link: Link, leader: Identity, key: str) -> None:
    await link.client.stop(key=key, attempt=0, reason="cancel")


async def kill(link: Link, leader: Identity, key: str) -> None:
    await link.client.stop(key=key, attempt=0, reason="cancel", timeout_s=0)


async def die(link: Link, leader: Identity, key: str) -> None:
    os.kill(leader.pid, signal.SIGKILL)


async def nothing(link: Link, leader: Identity, key: str) -> None:
    """It ends by itself, or by its limit."""


End = Callable[[Link, Identity, str], Awaitable[None]]
ENDS = [
    pytest.param(cancel, "stay", None, signal.SIGTERM, id="cancel"),
    pytest.param(kill, "stay", None, signal.SIGKILL, id="now"),
    pytest.param(die, "stay", None, signal.SIGKILL, id="killed-by-somebody"),
    pytest.param(nothing, "stay", 3.0, signal.SIGTERM, id="timeout"),
    pytest.param(nothing, None, None, None, id="by-itself"),
]


@pytest.mark.parametrize(("end", "stays", "runtime_max_s", "by"), ENDS)
async def test_escapees_end_with_their_run(
    spawner: SpawnerUnderTest, end: End, stays: str | None, runtime_max_s: float | None, by: int | None
) -> None:
    async with spawner.link() as link:
        more = ("stay",) if stays else ()
        leader = await start(link, spawner, "escape", "run", *more, runtime_max_s=runtime_max_s)
        await end(link, leader, "run")
        record = await link.until("run", "exited")
    assert spawner.processes_of("run") == []
    assert record.exit is not None
    assert (record.exit.code, record.exit.signal) == (None if by else 0, by)
    assert_nothing_left(spawner)


@pytest.mark.parametrize("end", [cancel, kill, die])
async def test_one_that_runs_away_is_caught(spawner: SpawnerUnderTest, end: End) -> None:
    async with spawner.link() as link:
        leader = await start(link, spawner, "run-away", "run")
        await end(link, leader, "run")
        await link.until("run", "exited")
    assert spawner.processes_of("run") == []
    assert "cannot kill all of its processes" not in spawner.said()


async def test_escapees_of_other_runs_live_on(spawner: SpawnerUnderTest) -> None:
    async with spawner.link() as link:
        await start(link, spawner, "escape", "lives", "stay")
        lives = spawner.processes_of("lives")
        assert len(lives) == 3
        for key, end in (("cancelled", cancel), ("killed", kill), ("dead", die)):
            leader = await start(link, spawner, "escape", key, "stay")
            await end(link, leader, key)
            await link.until(key, "exited")
            assert spawner.processes_of(key) == []
            assert spawner.processes_of("lives") == lives
        await link.client.stop(key="lives", attempt=0, reason="cancel")
        await link.until("lives", "exited")
    assert spawner.processes_of("lives") == []
    assert_nothing_left(spawner)


async def test_runs_that_end_together_take_theirs_with_them(spawner: SpawnerUnderTest) -> None:
    async with spawner.link() as link:
        keys = [f"r{number}" for number in range(6)]
        await asyncio.gather(*(start(link, spawner, "escape", key, "stay") for key in keys))
        await asyncio.gather(*(link.client.stop(key=key, attempt=0, reason="cancel") for key in keys))
        for key in keys:
            await link.until(key, "exited")
            assert spawner.processes_of(key) == []
    assert_nothing_left(spawner)


@pytest.mark.skipif(os.uname().machine not in ("x86_64", "aarch64"), reason="its system call's number is not known")
async def test_a_live_run_may_make_the_spawners_children(spawner: SpawnerUnderTest) -> None:
    """Whose they are is in their environment."""
    async with spawner.link() as link:
        await start(link, spawner, "sibling", "lives", environment={"RUNNERD_RUN_ID": "lives"})
        lives = spawner.processes_of("lives")
        assert len(lives) == 2
        leader = await start(link, spawner, "escape", "dies", "stay", environment={"RUNNERD_RUN_ID": "dies"})
        await die(link, leader, "dies")
        await link.until("dies", "exited")
        assert (spawner.processes_of("lives"), spawner.processes_of("dies")) == (lives, [])
        await link.client.stop(key="lives", attempt=0, reason="cancel")
        await link.until("lives", "exited")
    assert spawner.processes_of("lives") == []
    assert_nothing_left(spawner)


async def test_children_from_before_it_was_a_spawner_are_no_runs(idle_spawner: SpawnerUnderTest) -> None:
    """As in a container, where whatever loses its parent becomes the first process's."""
    beside = shlex.join([sys.executable, "-I", "-S", str(idle_spawner.child_script), "wait", "mine"])
    idle_spawner.start(through=("/bin/sh", "-c", f'{beside} & exec "$@"', "sh"))
    wait_until(lambda: idle_spawner.processes_of("mine"), "the spawner's own child")
    (mine,) = idle_spawner.processes_of("mine")
    async with idle_spawner.link() as link:
        for end in (cancel, kill):
            key = end.__name__
            leader = await start(link, idle_spawner, "escape", key, "stay")
            await end(link, leader, key)
            await link.until(key, "exited")
            assert idle_spawner.processes_of(key) == []
    assert idle_spawner.processes_of("mine") == [mine]


# --- taken over -------------------------------------------------------------------------------------------------


async def start_and_lose_the_spawner(spawner: SpawnerUnderTest, mode: str, *more: str, **settings: object) -> Identity:
    async with spawner.link() as link:
        identity = await start(link, spawner, mode, "run", *more, **settings)
    spawner.end(signal.SIGKILL)
    return identity


async def end_it(spawner: SpawnerUnderTest, leader: Identity, end: End) -> None:
    async with spawner.link() as link:
        await end(link, leader, "run")
        await link.until("run", "exited")


@pytest.mark.parametrize("end", [cancel, kill, die])
async def test_escapees_of_a_run_that_was_taken_over(spawner: SpawnerUnderTest, end: End) -> None:
    leader = await start_and_lose_the_spawner(spawner, "escape", "stay")
    assert len(spawner.processes_of("run")) == 3
    spawner.start()
    await end_it(spawner, leader, end)
    assert spawner.processes_of("run") == []


async def test_one_that_runs_away_from_a_later_spawner_is_caught(spawner: SpawnerUnderTest) -> None:
    leader = await start_and_lose_the_spawner(spawner, "run-away")
    spawner.start()
    await end_it(spawner, leader, kill)
    assert spawner.processes_of("run") == []


@contextmanager
def stranger(spawner: SpawnerUnderTest, run_id: str) -> Iterator[int]:
    """A process of ours that says it belongs to a run."""
    command = [sys.executable, "-I", "-S", str(spawner.child_script), "wait", "stranger"]
    environment = {"RUNNERD_RUN_ID": run_id}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        try:
            yield process.pid
        finally:
            process.kill()


async def test_leader_that_died_while_there_was_no_spawner(spawner: SpawnerUnderTest) -> None:
    """What was never seen is known by its environment only; who daemonizes and drops it gets away with that."""
    leader = await start_and_lose_the_spawner(spawner, "escape", "stay", environment={"RUNNERD_RUN_ID": "run"})
    os.kill(leader.pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(leader.pid), "the leader to be dead")
    with stranger(spawner, "another-run") as other:
        spawner.start()
        await end_it(spawner, leader, nothing)
        (daemon,) = spawner.processes_of("run")
        assert "\0hide\0" in command_of(daemon)
        assert is_alive(other)


async def test_a_living_run_that_names_another_is_not_taken_for_it(spawner: SpawnerUnderTest) -> None:
    """As the hooks of a run do: they have its environment, and a key of their own."""
    leader = await start_and_lose_the_spawner(spawner, "escape", "stay", environment={"RUNNERD_RUN_ID": "run"})
    spawner.start()
    async with spawner.link() as link:
        hooks = await start(link, spawner, "wait", "hooks", environment={"RUNNERD_RUN_ID": "run"})
        await die(link, leader, "run")
        await link.until("run", "exited")
        assert is_alive(hooks.pid)
        await kill(link, hooks, "hooks")
        await link.until("hooks", "exited")
    assert spawner.processes_of("run") == []


# --- not as root ------------------------------------------------------------------------------------------------


@needs_root
@needs_system_python
@pytest.mark.parametrize("taken_over", [False, True])
async def test_escapees_end_where_the_spawner_is_not_root(idle_spawner: SpawnerUnderTest, taken_over: bool) -> None:
    spawner = idle_spawner
    shutil.chown(spawner.home, "nobody")
    spawner.start(user="nobody")
    async with spawner.link() as link:
        leader = await start(link, spawner, "escape", "run", "stay", user="nobody")
    if taken_over:
        spawner.end(signal.SIGKILL)
        spawner.start(user="nobody")
    await end_it(spawner, leader, cancel)
    assert spawner.processes_of("run") == []


@needs_root
@needs_system_python
async def test_what_cannot_be_killed_is_named_and_left(idle_spawner: SpawnerUnderTest) -> None:
    """As with sudo: a process of root's, started by a run of one who is not."""
    spawner = idle_spawner
    shutil.chown(spawner.home, "nobody")
    as_root = spawner.home / "as-root"
    shutil.copy(os.path.realpath(SYSTEM_PYTHON), as_root)
    os.chown(as_root, 0, pwd.getpwnam("nobody").pw_gid)
    as_root.chmod(0o4710)
    if os.statvfs(as_root).f_flag & os.ST_NOSUID:
        pytest.skip(f"{as_root} is on a file system that lets nobody become another user by a program")
    spawner.start(user="nobody")
    become_root = (
        "import os, signal, sys; os.setresuid(0, 0, 0); print(os.getpid(), 'ready', flush=True); signal.pause()"
    )
    script = f"{as_root} -I -S -c {become_root!r} {spawner.home} & wait"
    async with spawner.link() as link:
        spec = spawner.spec("run", "/bin/sh", "-c", script, user="nobody")
        record = await link.client.spawn(spec)
        text = await asyncio.to_thread(spawner.wait_for_output, "run")
        assert record.identity is not None
        os.kill(record.identity.pid, signal.SIGKILL)
        await link.until("run", "exited")
        # It is nobody's now, and later runs do not wait for it.
        await link.client.spawn(spawner.spec("next", "/bin/true", user="nobody"))
        await link.until("next", "exited")
        pid = int(text.split()[0])
    assert is_alive(pid)
    said = [line for line in spawner.said().splitlines() if "cannot kill all of its processes" in line]
    assert len(said) == 1
    assert f"key=run attempt=0 cannot kill all of its processes; leaving alone: {pid} (as-root)" in said[0]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(pid), "it to be dead")
