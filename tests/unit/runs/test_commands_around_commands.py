"""run.before and run.after of a deployment whose process is a command: within its lead, and over restarts."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from runnerd.core.commands import Command, CommandRules
from runnerd.core.machine import Phase
from runnerd.core.prefect import StateType
from runnerd.launch.run_commands import after_key, before_key
from tests.kits.engine import Engine, fake_engine, polling, resume, running
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.nouns import a_record

AROUND = {"before": (("/bin/check",),), "after": (("/bin/report",),)}


def deploy(engine: Engine, **rules: Any) -> str:
    command = Command(argv=("backup",), rules=CommandRules(**rules))
    return engine.deploy("backup", entrypoint="", command=command, run=AROUND)


def before(run_id: str) -> str:
    return before_key(a_record(run_id), 0)


def after(run_id: str) -> str:
    return after_key(a_record(run_id), 0)


async def test_what_is_before_it_is_over_when_it_is_due(tmp_path: Path) -> None:
    async with polling(tmp_path) as (engine, spawner):
        run_id = engine.add_run(deploy(engine), in_s=30)
        due = engine.now() + timedelta(seconds=30)
        engine.wakes.poll_now()
        await engine.until(lambda: before(run_id) in spawner.live())
        assert engine.now() < due - timedelta(seconds=1), "else the command would be late by the time of the other"
        spawner.exit(before(run_id))
        await engine.until(lambda: spawner.runs_of(run_id))
        assert timedelta(0) <= engine.now() - due < timedelta(seconds=0.2)


async def test_each_attempt_has_them_and_a_retry_is_no_end(tmp_path: Path) -> None:
    async with polling(tmp_path) as (engine, spawner):
        run_id = engine.add_run(deploy(engine, retries=1, retry_delay_s=20.0))
        engine.wakes.poll_now()
        for attempt, code in ((1, 1), (2, 0)):
            await engine.until(lambda: before(run_id) in spawner.live())
            spawner.exit(before(run_id))
            await engine.until(lambda attempt=attempt: len(spawner.runs_of(run_id)) == attempt)
            await engine.until(lambda: engine.prefect.state_of(run_id) == "RUNNING")
            spawner.exit(run_id, code=code)
            await engine.until(lambda: after(run_id) in spawner.live())
            spawner.exit(after(run_id))
            record = await engine.until_done(run_id)
        assert (record.api_state, record.attempt) == (StateType.COMPLETED, 2)
        assert engine.prefect.history[run_id][2:4] == ["Running", "AwaitingRetry"]


async def test_a_host_that_restarts_before_the_command_has_lost_nothing(tmp_path: Path) -> None:
    """What was under way was not the command itself, so that is not taken for one that may have run."""
    prefect = FakePrefect(major=3)
    async with fake_engine(tmp_path, prefect=prefect) as (engine, spawner):
        run_id = engine.add_run(deploy(engine))
        assert engine.offer(run_id) == (run_id,)
        await engine.until(lambda: before(run_id) in spawner.live())
        (record,) = engine.journal.unfinished()
        assert (record.phase, record.step) == (Phase.STARTING, "run.before: /bin/check")
        engine.supervisor.detach()
        engine.journal.save(replace(record, boot_id="an earlier boot"), "as it was")
        known = engine.registry.entries()
    async with fake_engine(tmp_path, prefect=prefect) as (engine, spawner):
        resume(engine, known)
        await engine.until(lambda: before(run_id) in spawner.live())
        spawner.exit(before(run_id))
        await engine.until(lambda: running(engine, run_id))
