"""Runs of commands: runnerd drives their states, over retries, restarts and outages, by a clock that jumps."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from runnerd.core.commands import Command, CommandRules
from runnerd.core.machine import Phase
from runnerd.core.prefect import StateType
from runnerd.runs.preparing import EXECUTE_AHEAD_S
from tests.kits.engine import Engine, fake_engine, polling, running
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.fakes.fake_spawner import BOOT, FakeSpawner

RETRIED = CommandRules(retries=1, retry_delay_s=40.0)


def deploy(engine: Engine, rules: CommandRules | None = None, **changes: Any) -> str:
    command = Command(argv=("backup",), rules=rules or CommandRules())
    return engine.deploy("backup", entrypoint="", command=command, **changes)


async def started(engine: Engine, rules: CommandRules | None = None, **changes: Any) -> str:
    """A command that runs, and is Running in Prefect; its id."""
    run_id = engine.add_run(deploy(engine, rules, **changes))
    assert engine.offer(run_id) == (run_id,)
    await engine.until(lambda: engine.prefect.state_of(run_id) == "RUNNING")
    return run_id


@pytest.mark.parametrize(("code", "state"), [(0, "Completed"), (3, "Completed"), (1, "Failed")])
async def test_its_states_are_made_here(tmp_path: Path, code: int, state: str) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = await started(engine, CommandRules(success_exit_codes=(0, 3)))
        spawner.exit(run_id, code=code)
        record = await engine.until_done(run_id)
        assert engine.prefect.history[run_id] == ["Scheduled", "Pending", "Running", state]
        assert engine.prefect.runs[run_id]["run_count"] == 1
        assert record.words == f"exited {code}"
        assert record.hook is None


async def test_a_signal_is_a_crash(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = await started(engine, RETRIED)
        spawner.exit(run_id, signal=11)
        assert (await engine.until_done(run_id)).words == "killed by SIGSEGV"
        assert engine.prefect.state_of(run_id) == "CRASHED"


async def test_a_cancel_is_no_failure_and_no_retry(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, _):
        run_id = await started(engine, RETRIED)
        engine.supervisor.cancel([run_id])
        record = await engine.until_done(run_id)
        assert (record.api_state, record.words) == (StateType.CANCELLED, "cancelled; killed by SIGTERM")


async def test_what_could_not_start_says_why(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        spawner.start_error = "no such interpreter /none"
        run_id = engine.add_run(deploy(engine, RETRIED))
        engine.offer(run_id)
        record = await engine.until_done(run_id)
        assert engine.prefect.history[run_id] == ["Scheduled", "Pending", "Crashed"], "it never ran"
        assert record.words == "could not start: no such command /none (203/EXEC)"


# --- retries ------------------------------------------------------------------------------------------------


async def test_a_failure_is_due_again_after_its_delay(tmp_path: Path) -> None:
    async with polling(tmp_path) as (engine, spawner):
        run_id = await started(engine, RETRIED)
        spawner.exit(run_id, code=1)
        failed_at = engine.now()
        record = await engine.until_done(run_id)
        assert (record.api_state, record.api_state_name) == (StateType.SCHEDULED, "AwaitingRetry")
        state = engine.prefect.runs[run_id]["state"]
        at = datetime.fromisoformat(state["state_details"]["scheduled_time"])
        assert timedelta(seconds=40) <= at - failed_at <= timedelta(seconds=42)
        assert state["message"] == "exited 1"
        await engine.until(lambda: len(spawner.runs_of(run_id)) == 2)
        assert engine.now() >= at
        await engine.until(lambda: engine.prefect.state_of(run_id) == "RUNNING")
        assert engine.prefect.runs[run_id]["run_count"] == 2
        spawner.exit(run_id, code=1)
        record = await engine.until_done(run_id)
        assert (record.api_state, record.attempt) == (StateType.FAILED, 2)


async def test_a_restart_between_two_attempts_loses_nothing(tmp_path: Path) -> None:
    spawner, prefect = FakeSpawner(), FakePrefect(major=3)
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        run_id = await started(engine, RETRIED)
        spawner.exit(run_id, code=1)
        await engine.until_done(run_id)
        entries = engine.registry.entries()
    async with polling(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        for entry in entries:
            engine.registry.put(entry)
        engine.wakes.poll_now()
        await engine.until(lambda: len(spawner.runs_of(run_id)) == 2)
        await engine.until(lambda: prefect.state_of(run_id) == "RUNNING")
        spawner.exit(run_id)
        record = await engine.until_done(run_id)
        assert (record.api_state, record.attempt, prefect.runs[run_id]["run_count"]) == (StateType.COMPLETED, 2, 2)


async def test_a_timeout_is_a_failure_that_is_retried(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = await started(engine, RETRIED, run={"runtime_max_s": 5.0})
        key = (run_id, 1)
        spawner.records[key] = replace(spawner.records[key], stop_reason="timeout")
        spawner.exit(run_id, signal=15)
        record = await engine.until_done(run_id)
        assert (record.api_state_name, record.intent) == ("AwaitingRetry", "timeout")
        assert record.words == "ran longer than runtime_max 5s; killed by SIGTERM"


# --- the API is away, the daemon is away ----------------------------------------------------------------------


async def test_an_outage_holds_up_no_command_and_its_attempt_is_counted(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = engine.add_run(deploy(engine))
        engine.offer(run_id)
        await engine.until(lambda: engine.prefect.state_of(run_id) == "PENDING")
        engine.prefect.down = True
        await engine.until(lambda: running(engine, run_id))
        await asyncio.sleep(600)
        spawner.exit(run_id)
        await engine.until(lambda: engine.phase(run_id) == "reporting")
        await asyncio.sleep(600)
        engine.prefect.down = False
        await engine.until_done(run_id)
        assert engine.prefect.history[run_id] == ["Scheduled", "Pending", "Running", "Completed"]
        assert engine.prefect.runs[run_id]["run_count"] == 1


async def test_running_is_told_once_though_its_answer_is_lost(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = engine.add_run(deploy(engine))
        engine.offer(run_id)
        await engine.until(lambda: engine.prefect.state_of(run_id) == "PENDING")
        engine.prefect.trouble("set_state", after=True)
        await engine.until(lambda: engine.prefect.state_of(run_id) == "RUNNING")
        await asyncio.sleep(60)
        spawner.exit(run_id)
        await engine.until_done(run_id)
        assert engine.prefect.history[run_id] == ["Scheduled", "Pending", "Running", "Completed"]


async def test_a_state_that_somebody_else_made_is_not_overwritten_by_running(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = engine.add_run(deploy(engine))
        engine.offer(run_id)
        await engine.until(lambda: engine.prefect.state_of(run_id) == "PENDING")
        engine.prefect.down = True
        await engine.until(lambda: running(engine, run_id))
        await asyncio.sleep(5)  # the first request has failed: from now on the state is read before
        engine.prefect.set_state(run_id, "FAILED", "Marked", force=True)
        engine.prefect.down = False
        await asyncio.sleep(120)
        spawner.exit(run_id)
        assert (await engine.until_done(run_id)).api_state is StateType.FAILED
        assert engine.prefect.history[run_id] == ["Scheduled", "Pending", "Marked"]


async def test_the_next_daemon_reports_it(tmp_path: Path) -> None:
    spawner, prefect = FakeSpawner(), FakePrefect(major=3)
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        run_id = await started(engine)
    spawner.exit(run_id, code=7)
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        engine.supervisor.adopt(engine.journal.unfinished())
        record = await engine.until_done(run_id)
        assert (record.api_state, record.words) == (StateType.FAILED, "exited 7")
        assert prefect.history[run_id] == ["Scheduled", "Pending", "Running", "Failed"]


async def test_the_next_daemon_reports_running_too(tmp_path: Path) -> None:
    spawner, prefect = FakeSpawner(), FakePrefect(major=3)
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        run_id = engine.add_run(deploy(engine))
        engine.offer(run_id)
        await engine.until(lambda: prefect.state_of(run_id) == "PENDING")
        prefect.down = True
        await engine.until(lambda: running(engine, run_id))
    prefect.down = False
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        engine.supervisor.adopt(engine.journal.unfinished())
        await engine.until(lambda: prefect.state_of(run_id) == "RUNNING")
        assert prefect.runs[run_id]["run_count"] == 1


async def test_a_journal_that_was_lost_loses_no_success(tmp_path: Path) -> None:
    spawner, prefect = FakeSpawner(), FakePrefect(major=3)
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    async with fake_engine(tmp_path / "one", prefect=prefect, spawner=spawner) as (engine, _):
        run_id = await started(engine)
        entries = engine.registry.entries()
    spawner.exit(run_id)
    async with fake_engine(tmp_path / "two", prefect=prefect, spawner=spawner) as (engine, _):
        for entry in entries:
            engine.registry.put(entry)
        (seen,) = engine.link.records()
        engine.supervisor.adopt_unknown(seen)
        assert (await engine.until_done(run_id)).api_state is StateType.COMPLETED


async def test_what_may_have_run_before_the_host_restarted_is_not_run_again(tmp_path: Path) -> None:
    """A command that was asked for in an earlier boot and that nobody saw: its state Pending proves nothing."""
    prefect = FakePrefect(major=3)
    async with fake_engine(tmp_path, prefect=prefect) as (engine, spawner):
        run_id = engine.add_run(deploy(engine))
        engine.offer(run_id)
        await engine.until(lambda: running(engine, run_id))
        record = engine.journal.run(run_id)
        assert record is not None
        engine.supervisor.detach()
        before = replace(record, phase=Phase.STARTING, boot_id="an earlier boot", identity=None, started_at=None)
        engine.journal.save(before, "as it was")
        entries = engine.registry.entries()
    prefect.runs[run_id]["state"] = prefect.states[run_id][1]
    spawner = FakeSpawner()
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        for entry in entries:
            engine.registry.put(entry)
        engine.supervisor.adopt(engine.journal.unfinished())
        record = await engine.until_done(run_id)
        assert spawner.runs_of(run_id) == []
        assert (record.api_state, record.words) == (StateType.CRASHED, "the host restarted")


async def test_what_was_not_asked_for_is_started_by_the_next_daemon(tmp_path: Path) -> None:
    spawner, prefect = FakeSpawner(), FakePrefect(major=3)
    spawner.full = True
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        run_id = engine.add_run(deploy(engine))
        engine.offer(run_id)
        await engine.until(lambda: (run := engine.supervisor.run(run_id)) and run.record.waiting)
        entries = engine.registry.entries()
    spawner.full = False
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        assert engine.link.boot_id == BOOT
        for entry in entries:
            engine.registry.put(entry)
        engine.supervisor.adopt(engine.journal.unfinished())
        await engine.until(lambda: len(spawner.runs_of(run_id)) == 1)


# --- on time ------------------------------------------------------------------------------------------------


async def test_it_is_claimed_ahead_and_started_when_it_is_due(tmp_path: Path) -> None:
    async with polling(tmp_path) as (engine, spawner):
        made = deploy(engine)
        for _ in range(2):
            run_id = engine.add_run(made, in_s=30)
            due = engine.now() + timedelta(seconds=30)
            engine.wakes.poll_now()
            await engine.until(lambda run_id=run_id: engine.phase(run_id) == "starting")
            claimed = engine.now()
            assert claimed < due and not spawner.runs_of(run_id), "a claim takes requests, whose time is not the run's"
            await engine.until(lambda run_id=run_id: spawner.runs_of(run_id))
            assert timedelta(0) <= engine.now() - due < timedelta(seconds=0.2)
            spawner.exit(run_id)
            record = await engine.until_done(run_id)
            assert record.ready_s is not None and record.ready_s < 1
        assert due - claimed < timedelta(seconds=2), "the second one is claimed as late as the first one allows"


async def test_its_process_is_started_ahead_where_that_can_wait(tmp_path: Path) -> None:
    async with polling(tmp_path) as (engine, spawner):
        spawner.hello = replace(spawner.hello, waits=True)
        spawner.lose()  # the next connection says hello again
        run_id = engine.add_run(deploy(engine), in_s=30)
        due = engine.now() + timedelta(seconds=30)
        await engine.until(lambda: spawner.runs_of(run_id))
        assert timedelta(0) < due - engine.now() <= timedelta(seconds=EXECUTE_AHEAD_S)
        spec = spawner.runs_of(run_id)[0]
        assert spec.execute_at_s == pytest.approx(due.timestamp(), abs=0.001)


async def test_a_cancel_while_it_waits_starts_nothing(tmp_path: Path) -> None:
    async with polling(tmp_path) as (engine, spawner):
        run_id = engine.add_run(deploy(engine), in_s=20)
        engine.wakes.poll_now()
        await engine.until(lambda: engine.phase(run_id) == "starting")
        engine.supervisor.cancel([run_id])
        record = await engine.until_done(run_id)
        assert (record.words, spawner.runs_of(run_id)) == ("cancelled before it started", [])
        assert engine.prefect.history[run_id][-1] == "Cancelled"


# --- leases -------------------------------------------------------------------------------------------------


async def test_a_lease_is_renewed_as_long_as_it_runs(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        made = deploy(engine, concurrency_limit=1)
        options = {"collision_strategy": "ENQUEUE"}
        engine.prefect.deployments[made] |= {"concurrency_limit": 1, "concurrency_options": options}
        run_id = engine.add_run(made)
        engine.offer(run_id)
        await engine.until(lambda: engine.prefect.state_of(run_id) == "RUNNING")
        before = len(engine.prefect.renewed)
        await asyncio.sleep(1000)
        assert len(engine.prefect.renewed) - before >= 9
        spawner.exit(run_id)
        await engine.until_done(run_id)
