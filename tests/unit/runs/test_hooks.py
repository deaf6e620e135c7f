"""A flow's own hooks for how its run ended: begun once, after the API was told, whatever dies in between."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from runnerd.core.errors import SpawnerError
from runnerd.core.machine import Hook, Intent
from runnerd.core.prefect import ApiState, StateType
from runnerd.core.verdicts import hook_due
from runnerd.files.bounded_calls import Unanswered
from runnerd.launch.spec import hooks_key
from tests.kits.engine import Engine, events, fake_engine, resume, start
from tests.kits.engine_parts import SpecLauncher
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.fakes.fake_spawner import FakeSpawner
from tests.kits.journal import left_behind
from tests.kits.nouns import a_record

ALL = {Hook.ON_CANCELLATION, Hook.ON_CRASHED, Hook.ON_FAILURE}


# --- which ------------------------------------------------------------------------------------------------------

OURS, THEIRS = "our-verdict", "somebody-else's"


@pytest.mark.parametrize(
    ("kind", "transition_id", "intent", "due"),
    [
        (StateType.CANCELLED, OURS, None, (Hook.ON_CANCELLATION, False)),
        (StateType.CANCELLED, THEIRS, Intent.CANCEL, (Hook.ON_CANCELLATION, False)),
        (StateType.CANCELLED, THEIRS, Intent.EVICT, (Hook.ON_CANCELLATION, False)),
        (StateType.CANCELLED, THEIRS, None, (None, False)),
        (StateType.CANCELLED, None, Intent.TIMEOUT, (None, False)),
        (StateType.CRASHED, OURS, None, (Hook.ON_CRASHED, False)),
        (StateType.CRASHED, THEIRS, None, (Hook.ON_CRASHED, True)),
        (StateType.CRASHED, None, Intent.EVICT, (Hook.ON_CRASHED, True)),
        (StateType.FAILED, OURS, Intent.TIMEOUT, (Hook.ON_FAILURE, False)),
        (StateType.FAILED, None, None, (None, False)),
        (StateType.COMPLETED, None, Intent.CANCEL, (None, False)),
        (StateType.SCHEDULED, OURS, Intent.EVICT, (None, False)),
    ],
)
def test_which_hooks_a_last_state_calls_for(
    kind: StateType, transition_id: str | None, intent: Intent | None, due: tuple[Hook | None, bool]
) -> None:
    record = a_record(verdict_id=OURS, intent=intent)
    assert hook_due(record, ApiState(type=kind, name="x", transition_id=transition_id)) == due


def test_a_state_without_an_id_is_not_ours_because_we_have_none_either() -> None:
    assert hook_due(a_record(), ApiState(type=StateType.CRASHED, name="Crashed")) == (Hook.ON_CRASHED, True)


# --- when -------------------------------------------------------------------------------------------------------


def hooks_of(spawner: FakeSpawner, run_id: str) -> int:
    return len(spawner.runs_of(hooks_key(run_id)))


async def crashed(engine: Engine, spawner: FakeSpawner) -> str:
    """A run whose hooks on a crash are under way."""
    engine.hooks = ALL
    run_id = await start(engine)
    spawner.exit(run_id, code=None, signal=9)
    await engine.until(lambda: hooks_of(spawner, run_id))
    return run_id


async def test_a_killed_run_has_its_hooks_after_the_api_knows(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = await crashed(engine, spawner)
        assert engine.prefect.state_of(run_id) == "CRASHED"
        assert engine.phase(run_id) == "reporting", "its slot is taken until they have ended"
        assert '"hook": "on_crashed", "of_child": false' in spawner.started[-1].environment["RUNNERD_HOOKS"]
        spawner.exit(hooks_key(run_id), code=1)
        record = await engine.until_done(run_id)
        assert (record.words, record.hook) == ("killed by SIGKILL", Hook.ON_CRASHED)
        assert events(engine, run_id)[-3:] == [
            "told; on_crashed is due",
            "on_crashed begun",
            "on_crashed: exited 1",
        ]
        assert spawner.records == {}, "neither of the run nor of its hooks a record is left behind"


async def test_a_flow_without_hooks_costs_no_process(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        engine.hooks = {Hook.ON_CANCELLATION}
        run_id = await start(engine)
        spawner.exit(run_id, code=None, signal=9)
        await engine.until_done(run_id)
        assert hooks_of(spawner, run_id) == 0


async def test_a_cancelled_run_has_the_others(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        engine.hooks = ALL
        run_id = await start(engine)
        engine.supervisor.cancel([run_id])
        await engine.until(lambda: hooks_of(spawner, run_id))
        assert '"on_cancellation"' in spawner.started[-1].environment["RUNNERD_HOOKS"]
        spawner.exit(hooks_key(run_id))
        assert (await engine.until_done(run_id)).api_state is StateType.CANCELLED


async def test_hooks_end_by_their_time_limit(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = await crashed(engine, spawner)
        spawner.stubborn = True
        began = engine.clock()
        await engine.until_done(run_id)
        assert engine.clock() - began == pytest.approx(65.0, abs=1.0), "60 s, and 5 s to end"
        assert events(engine, run_id)[-1] == "on_crashed: took longer than hook_timeout 1min; killed by SIGKILL"


async def test_hooks_that_cannot_be_started_leave_the_run_done(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        engine.hooks = ALL
        run_id = await start(engine)
        spawner.refuses = "no more processes"
        spawner.exit(run_id, code=None, signal=9)
        record = await engine.until_done(run_id)
        assert events(engine, run_id)[-1] == "on_crashed: could not start: no more processes"
        assert record.words == "killed by SIGKILL; on_crashed hooks could not start: no more processes"
        assert "hooks were not run" in engine.lines.events("error")


@pytest.mark.parametrize("answers", [True, False])
async def test_hooks_wait_for_a_disk_that_does_not_answer(tmp_path: Path, answers: bool) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        engine.hooks = ALL
        run_id = await start(engine)
        assert isinstance(engine.launcher, SpecLauncher)
        engine.launcher.hangs = Unanswered("environment_file /mnt/env: did not answer within 10 s")
        spawner.exit(run_id, code=None, signal=9)
        await asyncio.sleep(200.0)
        assert (engine.phase(run_id), hooks_of(spawner, run_id)) == ("reporting", 0)
        if answers:
            engine.launcher.hangs = None
            await engine.until(lambda: hooks_of(spawner, run_id))
            spawner.exit(hooks_key(run_id))
            assert (await engine.until_done(run_id)).words == "killed by SIGKILL"
        else:
            record = await engine.until_done(run_id)
            why = "on_crashed hooks could not start: environment_file /mnt/env: did not answer within 10 s"
            assert record.words == f"killed by SIGKILL; {why}"
            assert "hooks were not run" in engine.lines.events("error")


# --- once -------------------------------------------------------------------------------------------------------


async def test_a_successor_waits_for_hooks_that_were_begun(tmp_path: Path) -> None:
    spawner, prefect = FakeSpawner(), FakePrefect(major=3)
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        run_id = await crashed(engine, spawner)
        known = engine.registry.entries()
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        resume(engine, known)
        await asyncio.sleep(1.0)
        spawner.exit(hooks_key(run_id))
        await engine.until_done(run_id)
        assert hooks_of(spawner, run_id) == 1
        assert prefect.history[run_id].count("Crashed") == 1


@pytest.mark.parametrize(("begun_in", "hooks"), [(None, 2), ("boot-1", 2), ("boot-0", 1)])
async def test_after_the_spawner_forgot(tmp_path: Path, begun_in: str | None, hooks: int) -> None:
    """Due and not begun, or begun without a process: they are begun. In an earlier boot: they may have run."""
    spawner, prefect = FakeSpawner(), FakePrefect(major=3)
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        run_id = await crashed(engine, spawner)
        (record,) = engine.journal.unfinished()
        known = engine.registry.entries()
    left_behind(tmp_path, record, hook_boot=begun_in)
    spawner.forget_all()
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        resume(engine, known)
        await engine.until(lambda: hooks_of(spawner, run_id) == hooks)
        if hooks == 2:
            spawner.exit(hooks_key(run_id))
        await engine.until_done(run_id)
        assert hooks_of(spawner, run_id) == hooks


async def test_a_verdict_whose_answer_was_lost_with_its_daemon_is_still_known_as_ours(tmp_path: Path) -> None:
    """Else its crash would read as the child's own, and a Prefect that ran no hooks be trusted to have run them."""
    spawner, prefect = FakeSpawner(), FakePrefect(major=3)
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        run_id = await start(engine)
        prefect.trouble("set_state", after=True, times=1000)  # it acts, and nobody hears
        spawner.exit(run_id, code=None, signal=9)
        await engine.until(lambda: prefect.state_of(run_id) == "CRASHED")
        known = engine.registry.entries()
    prefect.troubles.clear()
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        engine.hooks = ALL
        resume(engine, known)
        await engine.until(lambda: hooks_of(spawner, run_id))
        assert '"of_child": false' in spawner.started[-1].environment["RUNNERD_HOOKS"]
        spawner.exit(hooks_key(run_id))
        await engine.until_done(run_id)
        assert prefect.history[run_id].count("Crashed") == 1


async def test_an_ended_flow_s_record_is_not_confused_with_its_hooks(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = await crashed(engine, spawner)
        with pytest.raises(SpawnerError):
            spawner.forget(hooks_key(run_id), 1)
        spawner.exit(hooks_key(run_id))
        await engine.until_done(run_id)
