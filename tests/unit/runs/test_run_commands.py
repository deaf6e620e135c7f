"""run.before and run.after: once for each attempt, before its process and after its report, whatever dies meanwhile."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from runnerd.core.machine import Hook
from runnerd.core.prefect import StateType
from runnerd.launch.run_commands import after_key, before_key
from tests.kits.engine import Engine, events, fake_engine, resume, running
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.fakes.fake_spawner import FakeSpawner
from tests.kits.nouns import Json, a_record

BEFORE = {"before": (("/bin/check", "{{ run.name }}"),), "before_timeout_s": 20.0}
TWO = {"before": (("/bin/check",), ("/bin/mount",))}
AFTER = {"after": (("/bin/report",), ("/bin/umount",)), "after_timeout_s": 20.0}


def before(run_id: str, index: int = 0) -> str:
    return before_key(a_record(run_id), index)


def after(run_id: str, index: int = 0) -> str:
    return after_key(a_record(run_id), index)


def begin(engine: Engine, run: Json, **more: Json) -> str:
    run_id = engine.add_run(engine.deploy(run=run), **more)
    assert engine.offer(run_id) == (run_id,)
    return run_id


async def live(engine: Engine, spawner: FakeSpawner, *keys: str) -> None:
    """Wait until exactly these processes are there."""
    await engine.until(lambda: sorted(spawner.live()) == sorted(keys))


# --- before ---------------------------------------------------------------------------------------------------------


async def test_the_run_starts_once_each_command_has_succeeded(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = begin(engine, TWO)
        await live(engine, spawner, before(run_id))
        assert engine.phase(run_id) == "starting"
        record = engine.supervisor.records()[0]
        assert record.step == "run.before: /bin/check"
        assert record.waiting is None, "or other runs of the deployment would wait behind it"
        spawner.exit(before(run_id))
        await live(engine, spawner, before(run_id, 1))
        spawner.exit(before(run_id, 1))
        await live(engine, spawner, run_id)
        await engine.until(lambda: running(engine, run_id))
        engine.prefect.set_state(run_id, "COMPLETED")
        spawner.exit(run_id)
        assert (await engine.until_done(run_id)).step is None
        assert spawner.records == {}, "no record of a command is left behind"


async def test_a_command_has_the_run_and_its_process_environment(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = begin(engine, BEFORE | {"user": "etl"})
        await live(engine, spawner, before(run_id))
        (spec,) = spawner.started
        record = engine.supervisor.records()[0]
        assert spec.argv[:2] == ("/bin/sh", "-c")
        assert spec.argv[-2:] == ("/bin/check", record.name)
        document = json.loads(spec.environment["RUNNERD_DOCUMENT"])
        assert (document["id"], document["phase"], document["host"]) == (run_id, "starting", "host-1")
        assert (spec.user, spec.runtime_max_s, spec.output) == ("etl", 20.0, f"/var/log/{run_id}.1.log")


async def test_a_failing_command_keeps_the_run_from_starting(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = begin(engine, TWO)
        await live(engine, spawner, before(run_id))
        spawner.exit(before(run_id), code=3)
        record = await engine.until_done(run_id)
        assert record.words == "could not start: run.before: /bin/check: exited 3"
        assert record.api_state is StateType.CRASHED, "which nobody retries"
        assert [spec.key for spec in spawner.started] == [before(run_id)]
        assert spawner.records == {}


async def test_a_command_that_takes_too_long_is_a_failing_one(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, _):
        run_id = begin(engine, BEFORE)
        record = await engine.until_done(run_id)
        assert record.words == "could not start: run.before: /bin/check: took longer than 20s"


async def test_a_command_that_cannot_be_started_is_a_failing_one(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        spawner.start_error = "no such user"
        record = await engine.until_done(begin(engine, BEFORE))
        assert record.words == "could not start: run.before: /bin/check: cannot start: no such user"


async def test_a_spawner_that_refuses_is_one_too(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        spawner.refuses = "no more processes"
        record = await engine.until_done(begin(engine, BEFORE))
        assert record.words == "could not start: run.before: /bin/check: no more processes"


async def test_a_full_disk_is_no_fault_of_the_command(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        spawner.full = True
        run_id = begin(engine, BEFORE)
        await engine.until(lambda: "a run waits for disk space" in engine.lines.events("error"))
        spawner.full = False
        await live(engine, spawner, before(run_id))
        spawner.exit(before(run_id))
        await live(engine, spawner, run_id)


@pytest.mark.parametrize("now", [False, True])
async def test_a_cancel_ends_the_command_and_the_run_never_starts(tmp_path: Path, now: bool) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = begin(engine, TWO)
        await live(engine, spawner, before(run_id))
        engine.supervisor.cancel([run_id], now=now)
        record = await engine.until_done(run_id)
        assert [(stop.key, stop.reason, stop.timeout_s) for stop in spawner.stops] == [
            (before(run_id), "cancel", 0.0 if now else None)
        ]
        assert (record.words, record.api_state) == ("cancelled before it started", StateType.CANCELLED)
        assert [spec.key for spec in spawner.started] == [before(run_id)]


async def test_a_second_cancel_kills_a_command_that_does_not_end(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        spawner.stubborn = True
        run_id = begin(engine, BEFORE)
        await live(engine, spawner, before(run_id))
        engine.supervisor.cancel([run_id])
        await engine.until(lambda: spawner.stops)
        engine.supervisor.cancel([run_id], now=True)
        await engine.until_done(run_id)
        assert [stop.timeout_s for stop in spawner.stops] == [None, 0.0]


async def test_a_drain_ends_the_command(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, then="reschedule") as (engine, spawner):
        run_id = begin(engine, BEFORE)
        await live(engine, spawner, before(run_id))
        engine.supervisor.evict_all()
        await engine.until_done(run_id)
        assert engine.prefect.state_of(run_id) == "SCHEDULED"


@pytest.mark.parametrize("ended", [False, True])
async def test_the_next_daemon_goes_on_with_the_command(tmp_path: Path, ended: bool) -> None:
    spawner, prefect = FakeSpawner(), FakePrefect(major=3)
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        run_id = begin(engine, BEFORE)
        await live(engine, spawner, before(run_id))
        known = engine.registry.entries()
    if ended:
        spawner.exit(before(run_id))
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        resume(engine, known)
        if not ended:
            await asyncio.sleep(1.0)
            assert spawner.live() == [before(run_id)]
            spawner.exit(before(run_id))
        await live(engine, spawner, run_id)
        assert [spec.key for spec in spawner.started] == [before(run_id), run_id]


async def test_a_run_that_was_started_already_is_not_preceded_again(tmp_path: Path) -> None:
    spawner, prefect = FakeSpawner(), FakePrefect(major=3)
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        run_id = begin(engine, BEFORE)
        await live(engine, spawner, before(run_id))
        (starting,) = engine.journal.unfinished()
        spawner.exit(before(run_id))
        await engine.until(lambda: running(engine, run_id))
        known = engine.registry.entries()
        engine.journal.save(starting, "as if the daemon had died before it could note the start")
    del spawner.records[before(run_id), 1]
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        resume(engine, known)
        await engine.until(lambda: running(engine, run_id))
        assert [spec.key for spec in spawner.started] == [before(run_id), run_id]


async def test_each_start_is_preceded(tmp_path: Path) -> None:
    """A second attempt, because no code of the first one ran."""
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = begin(engine, BEFORE)
        await live(engine, spawner, before(run_id))
        spawner.exit(before(run_id))
        await live(engine, spawner, run_id)
        spawner.exit(run_id, code=None)  # nobody saw how
        await live(engine, spawner, before(run_id))
        assert [spec.attempt for spec in spawner.runs_of(before(run_id))] == [1, 2]


# --- after ----------------------------------------------------------------------------------------------------------


async def end(engine: Engine, spawner: FakeSpawner, run: Json, **exit: Json) -> str:
    run_id = begin(engine, run)
    await engine.until(lambda: running(engine, run_id))
    engine.prefect.set_state(run_id, "RUNNING")
    spawner.exit(run_id, **exit)
    return run_id


async def test_they_run_after_the_api_has_the_end_and_change_nothing(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = await end(engine, spawner, AFTER, code=1)
        await live(engine, spawner, after(run_id))
        assert (engine.prefect.state_of(run_id), engine.phase(run_id)) == ("CRASHED", "reporting")
        document = json.loads(spawner.started[-1].environment["RUNNERD_DOCUMENT"])
        assert (document["api_state"], document["words"]) == ("CRASHED", "exited 1")
        spawner.exit(after(run_id), code=4)
        await live(engine, spawner, after(run_id, 1))
        spawner.exit(after(run_id, 1))
        record = await engine.until_done(run_id)
        assert record.api_state is StateType.CRASHED
        assert record.words == "exited 1; run.after: /bin/report: exited 4"
        assert "run.after has failed" in engine.lines.events("warning")
        assert spawner.records == {}


async def test_they_come_after_the_flow_s_own_hooks(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        engine.hooks = {Hook.ON_CRASHED}
        run_id = await end(engine, spawner, AFTER, code=1)
        await live(engine, spawner, f"hooks-{run_id}")
        spawner.exit(f"hooks-{run_id}")
        await live(engine, spawner, after(run_id))


async def test_a_run_that_its_commands_kept_from_starting_has_them_too(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = begin(engine, BEFORE | AFTER)
        await live(engine, spawner, before(run_id))
        spawner.exit(before(run_id), code=1)
        await live(engine, spawner, after(run_id))


async def test_they_are_ended_by_their_time_limit(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = await end(engine, spawner, AFTER, code=1)
        record = await engine.until_done(run_id)
        assert record.words == "exited 1; run.after: /bin/report: took longer than 20s"


@pytest.mark.parametrize("boot", [None, "boot-0"])
async def test_a_later_daemon_waits_for_them_and_a_later_boot_does_not_repeat_them(
    tmp_path: Path, boot: str | None
) -> None:
    spawner, prefect = FakeSpawner(), FakePrefect(major=3)
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        run_id = await end(engine, spawner, AFTER, code=1)
        await live(engine, spawner, after(run_id))
        (record,) = engine.journal.unfinished()
        known = engine.registry.entries()
        if boot is not None:
            engine.journal.save(replace(record, after_boot=boot), "as in an earlier boot")
    if boot is not None:
        spawner.forget_all()
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        resume(engine, known)
        if boot is None:
            await asyncio.sleep(1.0)
            spawner.exit(after(run_id))
            await live(engine, spawner, after(run_id, 1))
            spawner.exit(after(run_id, 1))
        record = await engine.until_done(run_id)
        assert len(spawner.runs_of(after(run_id))) == 1
        restarted = "; run.after: the host restarted meanwhile; it is not run again"
        assert record.words == "exited 1" + (restarted if boot else "")
        assert events(engine, run_id)[-1].startswith("run.after: ")


async def test_without_commands_nothing_is_run(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = await end(engine, spawner, {}, code=1)
        await engine.until_done(run_id)
        assert [spec.key for spec in spawner.started] == [run_id]
