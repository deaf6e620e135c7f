"""What survives: runs a lost client, records a killed spawner, promises both."""

from __future__ import annotations

import asyncio
import json
import os
import signal

from runnerd.core.process import Identity
from runnerd.spawner.proc.identity import is_alive, read_start_ticks
from tests.kits.spawner import SpawnerUnderTest, wait_until


async def spawn(spawner: SpawnerUnderTest, key: str, mode: tuple[str, ...] = ("wait",), **settings: object) -> Identity:
    """Start it, see it ready, and disconnect."""
    async with spawner.link() as link:
        record = await link.client.spawn(spawner.spec(key, mode=mode, **settings))
        assert record.identity is not None
        await asyncio.to_thread(spawner.wait_for_output, key)
        return record.identity


async def test_runs_outlive_the_client_and_are_replayed(spawner: SpawnerUnderTest) -> None:
    identity = await spawn(spawner, "lives")
    await spawn(spawner, "ends")
    dying = await spawn(spawner, "dies")
    os.kill(dying.pid, signal.SIGKILL)
    wait_until(lambda: "key=dies attempt=0 phase=exited" in spawner.said(), "its end to be seen")
    async with spawner.link() as link:
        assert {key for key, _ in link.replayed} == {"lives", "ends", "dies"}
        assert link.replayed["lives", 0].phase == "running"
        assert link.replayed["lives", 0].identity == identity
        dead = link.replayed["dies", 0].exit
        assert dead is not None
        assert dead.signal == signal.SIGKILL
        await link.client.stop(key="ends", attempt=0, reason="cancel")
        await link.until("ends", "exited")
        assert is_alive(identity.pid)


async def test_client_hears_of_a_lost_spawner_and_connects_to_the_next(spawner: SpawnerUnderTest) -> None:
    async with spawner.link() as link:
        await link.client.spawn(spawner.spec("run", mode=("wait",)))
        spawner.end(signal.SIGKILL)
        async with asyncio.timeout(60):
            await link.lost.wait()
        await asyncio.to_thread(spawner.start)
        (record,) = await link.client.connect()
        assert record.phase == "running"
        await link.client.stop(key="run", attempt=0, reason="cancel")
        await link.until("run", "exited")


async def test_leaving_politely_touches_no_run(spawner: SpawnerUnderTest) -> None:
    identity = await spawn(spawner, "run")
    assert spawner.end(signal.SIGTERM) == 0
    assert not os.path.exists(spawner.socket)
    assert is_alive(identity.pid)
    spawner.start()
    async with spawner.link() as link:
        assert link.replayed["run", 0].identity == identity


async def test_hangup_ends_nothing(spawner: SpawnerUnderTest) -> None:
    assert spawner.process is not None
    os.kill(spawner.process.pid, signal.SIGHUP)
    await spawn(spawner, "run")


async def test_killed_spawner_is_followed_by_one_that_finds_its_runs(spawner: SpawnerUnderTest) -> None:
    identity = await spawn(spawner, "run", mode=("straggler", "and stay"))
    spawner.end(signal.SIGKILL)
    spawner.start()
    async with spawner.link() as link:
        found = link.replayed["run", 0]
        assert (found.phase, found.identity) == ("running", identity)
        assert (await link.client.spawn(spawner.spec("run", "false"))).identity == identity
        os.kill(identity.pid, signal.SIGKILL)
        record = await link.until("run", "exited")
        # Somebody else's child by now: nobody can tell how it ended, and nobody guesses.
        assert record.exit is not None
        assert (record.exit.code, record.exit.signal, record.exit.cpu_s) == (None, None, None)
    stragglers = [int(line) for line in spawner.output("run").split() if line.isdigit()]
    assert not any(is_alive(pid) for pid in stragglers)


async def test_run_that_ended_unseen_is_concluded_and_swept(spawner: SpawnerUnderTest) -> None:
    identity = await spawn(spawner, "run", mode=("straggler", "and stay"))
    spawner.end(signal.SIGKILL)
    os.kill(identity.pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(identity.pid), "the leader to be dead")
    spawner.start()
    async with spawner.link() as link:
        record = await link.until("run", "exited")
        assert record.exit is not None
        assert (record.exit.code, record.exit.signal) == (None, None)
    stragglers = [int(line) for line in spawner.output("run").split() if line.isdigit()]
    wait_until(lambda: not any(is_alive(pid) for pid in stragglers), "the stragglers to be swept")


async def test_escalation_once_asked_for_survives_the_spawner(spawner: SpawnerUnderTest) -> None:
    identity = await spawn(spawner, "run", mode=("ignore-term",), stop_timeout_s=1.0)
    async with spawner.link() as link:
        await link.client.stop(key="run", attempt=0, reason="cancel")
    spawner.end(signal.SIGKILL)
    spawner.start()
    async with spawner.link() as link:
        record = await link.until("run", "exited")
        assert record.stop_reason == "cancel"
    assert not is_alive(identity.pid)


async def test_runtime_limit_survives_the_spawner(spawner: SpawnerUnderTest) -> None:
    await spawn(spawner, "run", runtime_max_s=2.0)
    spawner.end(signal.SIGKILL)
    spawner.start()
    async with spawner.link() as link:
        record = await link.until("run", "exited")
        assert record.stop_reason == "timeout"


async def test_exits_are_remembered_by_the_next_spawner(spawner: SpawnerUnderTest) -> None:
    async with spawner.link() as link:
        await link.client.spawn(spawner.spec("run", mode=("exit", "7")))
        await link.until("run", "exited")
    spawner.end(signal.SIGKILL)
    spawner.start()
    async with spawner.link() as link:
        record = link.replayed["run", 0].exit
        assert record is not None
        assert record.code == 7
        assert (await link.client.spawn(spawner.spec("run", "echo", "again"))).exit == record
    assert spawner.output("run") == ""


async def die_before_go(spawner: SpawnerUnderTest, when: str) -> None:
    """Ask a spawner for a run that it is killed over, and see the forked child gone."""
    spawner.start(program=("spawner-dies-before-go", when))
    async with spawner.link() as link:
        asking = asyncio.create_task(link.client.spawn(spawner.spec("run", "echo", "ran")))
        async with asyncio.timeout(60):
            await link.lost.wait()
        await asyncio.wait({asking})
        assert asking.exception() is not None
    assert spawner.process is not None
    assert spawner.process.stdout is not None
    pid, ticks = map(int, spawner.process.stdout.readline().split())
    assert spawner.wait() == -signal.SIGKILL
    wait_until(lambda: read_start_ticks(pid) != ticks or not is_alive(pid), "the child to give up")
    assert spawner.output("run") == ""


async def test_spawner_that_dies_before_the_record_has_run_nothing(idle_spawner: SpawnerUnderTest) -> None:
    await die_before_go(idle_spawner, "before")
    idle_spawner.start()
    async with idle_spawner.link() as link:
        assert link.replayed == {}
        await link.client.spawn(idle_spawner.spec("run", "echo", "ran"))
        await link.until("run", "exited")
    assert idle_spawner.output("run") == "ran\n"


async def test_spawner_that_dies_after_the_record_has_run_nothing(idle_spawner: SpawnerUnderTest) -> None:
    await die_before_go(idle_spawner, "after")
    idle_spawner.start()
    async with idle_spawner.link() as link:
        record = await link.until("run", "exited")
        assert record.exit is not None
        assert (record.exit.code, record.exit.signal) == (None, None)
    assert idle_spawner.output("run") == ""


def rewrite(spawner: SpawnerUnderTest, **changes: object) -> None:
    (path,) = spawner.records.glob("*.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


async def test_pid_of_another_boot_is_left_alone(spawner: SpawnerUnderTest) -> None:
    identity = await spawn(spawner, "run")
    spawner.end(signal.SIGKILL)
    rewrite(spawner, boot_id="00000000-0000-0000-0000-000000000000")
    spawner.start()
    await check_left_alone(spawner, identity)


async def test_pid_that_is_another_process_now_is_left_alone(spawner: SpawnerUnderTest) -> None:
    identity = await spawn(spawner, "run")
    spawner.end(signal.SIGKILL)
    rewrite(spawner, start_ticks=identity.start_ticks - 1)
    spawner.start()
    await check_left_alone(spawner, identity)


async def check_left_alone(spawner: SpawnerUnderTest, identity: Identity) -> None:
    async with spawner.link() as link:
        await link.until("run", "exited")
        await link.client.stop(key="run", attempt=0, reason="cancel", timeout_s=0)
        await link.client.signal(key="run", attempt=0, signal=signal.SIGKILL)
    assert is_alive(identity.pid)
    os.killpg(identity.pid, signal.SIGKILL)


async def test_corrupt_record_is_moved_aside(idle_spawner: SpawnerUnderTest) -> None:
    idle_spawner.records.mkdir(parents=True)
    for number, content in enumerate(["", "{", "[]", '{"key": "../x"}', "null", '{"key": "a", "attempt": 0}']):
        (idle_spawner.records / f"r{number}.0.json").write_text(content)
    (idle_spawner.records / "half.0.json.tmp").write_text("{")
    idle_spawner.start()
    async with idle_spawner.link() as link:
        assert link.replayed == {}
        await link.client.spawn(idle_spawner.spec("run", "true"))
        await link.until("run", "exited")
    names = sorted(path.name for path in idle_spawner.records.iterdir())
    assert names == [f"r{number}.0.json.corrupt" for number in range(6)] + ["run.0.json"]
    assert idle_spawner.said().count("cannot read record") == 6
