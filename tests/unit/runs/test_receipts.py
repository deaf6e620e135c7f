"""reporting.py: a run whose process has said what it reported ends without the API, and never against the API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from runnerd.core.machine import Phase, RunRecord
from runnerd.core.prefect import StateType
from runnerd.core.process import Receipt
from runnerd.runs.receipt_checks import ReceiptChecks
from tests.kits.engine import Engine, fake_engine, resume, start
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.fakes.fake_spawner import FakeSpawner
from tests.kits.journal import left_behind
from tests.kits.nouns import copied

COMPLETED = Receipt(state=StateType.COMPLETED, name="Well done")
FAILED = Receipt(state=StateType.FAILED, name="Failed")


@pytest.mark.parametrize("receipt", [COMPLETED, FAILED])
async def test_while_the_api_is_away_the_process_is_believed(tmp_path: Path, receipt: Receipt) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = await start(engine)
        engine.prefect.down = True
        spawner.exit(run_id, receipt=receipt)
        began = engine.clock()
        record = await engine.until_done(run_id)
        assert 25 < engine.clock() - began < 35, "the API has its chance"
        assert (record.api_state, record.api_state_name) == (receipt.state, receipt.name)
        assert record.hook is None
        assert "the API is away; the run has ended as its process says" in engine.lines.events("info")


@asynccontextmanager
async def checking(engine: Engine) -> AsyncIterator[None]:
    """The runs that a receipt has ended are read when the API is back, as a daemon does."""
    checks = ReceiptChecks(context=engine.context, supervisor=engine.supervisor)
    task = asyncio.create_task(checks.run())
    try:
        yield
        assert not task.done(), "it has ended, and the daemon with it"
    finally:
        task.cancel()
        await asyncio.wait({task})


async def ended_by_receipt(engine: Engine, spawner: FakeSpawner) -> str:
    """A run that has ended during an outage; its state in the API is Running."""
    run_id = await start(engine)
    engine.prefect.down = True
    spawner.exit(run_id, receipt=COMPLETED)
    assert (await engine.until_done(run_id)).unread
    return run_id


async def until_read(engine: Engine, run_id: str) -> RunRecord:
    def is_read() -> bool:
        known = engine.journal.run(run_id)
        return known is not None and known.phase is Phase.DONE and not known.unread

    await engine.until(is_read)
    record = engine.journal.run(run_id)
    assert record is not None
    return record


@pytest.mark.parametrize("restarted", [False, True])
async def test_once_the_api_is_back_a_receipt_that_was_wrong_is_settled(tmp_path: Path, restarted: bool) -> None:
    """The receipt was that of another flow, which the run's file runs while it is imported."""
    prefect, spawner = FakePrefect(major=3), FakeSpawner()
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner) as (engine, _), checking(engine):
        run_id = await ended_by_receipt(engine, spawner)
        if not restarted:
            await asyncio.sleep(3600)
            prefect.down = False
            record = await until_read(engine, run_id)
    if restarted:
        prefect.down = False
        async with fake_engine(tmp_path, prefect=prefect, spawner=spawner) as (engine, _), checking(engine):
            record = await until_read(engine, run_id)
    assert (record.api_state, record.words) == (StateType.CRASHED, "exited 0")
    assert prefect.history[run_id][-1] == "Crashed"
    assert "a run has not ended as its process says" in engine.lines.events("warning")


async def test_once_the_api_is_back_a_run_is_read_once(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner), checking(engine):
        run_id = await ended_by_receipt(engine, spawner)
        engine.prefect.set_state(run_id, "COMPLETED")
        engine.prefect.down = False
        assert (await until_read(engine, run_id)).api_state is StateType.COMPLETED
        assert engine.lines.events("warning") == []
        engine.prefect.asked.clear()
        await asyncio.sleep(3600)
        assert engine.prefect.asked == []


async def test_once_the_api_is_back_another_state_is_known(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner), checking(engine):
        run_id = await ended_by_receipt(engine, spawner)
        engine.prefect.set_state(run_id, "CANCELLED")
        engine.prefect.down = False
        assert (await until_read(engine, run_id)).api_state is StateType.CANCELLED
        assert engine.prefect.history[run_id][-1] == "Cancelled"


async def test_a_run_that_cannot_be_read_holds_up_no_other(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner), checking(engine):
        first, second = await start(engine), await start(engine, engine.deploy("other"))
        engine.prefect.down = True
        for run_id in (first, second):
            spawner.exit(run_id, receipt=COMPLETED)
            await engine.until_done(run_id)
        engine.prefect.trouble(f"GET /flow_runs/{first}", status=503, times=10**6)
        engine.prefect.down = False
        await until_read(engine, second)
        assert (engine.journal.unread(), engine.prefect.state_of(second)) == ([first], "CRASHED")


async def test_a_journal_that_cannot_be_read_is_read_later(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = await ended_by_receipt(engine, spawner)
        ended = engine.journal.run(run_id)
        assert ended is not None
        engine.prefect.set_state(run_id, "COMPLETED")
        engine.prefect.down = False
        engine.journal._db.execute("ALTER TABLE runs RENAME TO away")
        copied(engine.prefect)
        async with checking(engine):
            await asyncio.sleep(1)
            engine.feed.publish(ended)
            await asyncio.sleep(600)
            engine.journal._db.execute("ALTER TABLE away RENAME TO runs")
            await asyncio.sleep(600)
            assert engine.journal.unread() == []
            assert engine.lines.events("error").count("cannot list the runs that have ended unread") == 1
        assert copied(engine.prefect) == [f"GET /flow_runs/{run_id}"], "once, though it was also noted meanwhile"


async def test_a_run_that_another_host_has_by_then_is_left_alone(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner), checking(engine):
        run_id = await ended_by_receipt(engine, spawner)
        for state in ("COMPLETED", "SCHEDULED", "PENDING", "RUNNING"):
            engine.prefect.set_state(run_id, state)
        engine.prefect.down = False
        await until_read(engine, run_id)
        await asyncio.sleep(600)
        assert engine.prefect.state_of(run_id) == "RUNNING"


async def test_while_the_api_answers_it_is_believed(tmp_path: Path) -> None:
    """A file that runs a flow while it is imported sends that flow's receipt, and its run may end in any way."""
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = await start(engine)
        engine.prefect.trouble("GET /flow_runs", status=503, times=3)
        spawner.exit(run_id, receipt=COMPLETED)
        record = await engine.until_done(run_id)
        assert (record.api_state, record.words) == (StateType.CRASHED, "exited 0")
        assert engine.prefect.history[run_id][-1] == "Crashed"


@pytest.mark.parametrize("status", [403, 422, 429, 503])
async def test_an_api_that_answers_with_errors_for_long_is_not_away(tmp_path: Path, status: int) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = await start(engine)
        engine.prefect.trouble("GET /flow_runs", status=status, times=20)
        spawner.exit(run_id, receipt=COMPLETED)
        assert (await engine.until_done(run_id)).api_state is StateType.CRASHED


@pytest.mark.parametrize(
    ("receipt", "code", "signal"),
    [
        (COMPLETED, 1, None),
        (COMPLETED, None, 9),
        (COMPLETED, None, None),
        (Receipt(state=StateType.CRASHED, name="Crashed"), 0, None),
        (Receipt(state=StateType.CANCELLED, name="Cancelled"), 0, None),
        (Receipt(state=StateType.PAUSED, name="Paused"), 0, None),
        (Receipt(state=StateType.SCHEDULED, name="AwaitingRetry"), 0, None),
        (Receipt(), 0, None),
        (None, 0, None),
    ],
)
async def test_what_may_need_a_verdict_waits_for_the_api(
    tmp_path: Path, receipt: Receipt | None, code: int | None, signal: int | None
) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = await start(engine)
        engine.prefect.down = True
        spawner.exit(run_id, receipt=receipt, code=code, signal=signal)
        await asyncio.sleep(3600)
        assert engine.phase(run_id) == "reporting"
        engine.prefect.down = False
        assert (await engine.until_done(run_id)).api_state is StateType.CRASHED


async def test_a_verdict_that_may_have_arrived_is_followed_up(tmp_path: Path) -> None:
    """The hooks of a run that was reported depend on whose state it is, which only the API knows."""
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = await start(engine)
        engine.prefect.trouble("set_state", status=503, times=10**6)
        spawner.exit(run_id, receipt=COMPLETED)  # the state is Running, so CRASHED is on its way
        await asyncio.sleep(60)
        engine.prefect.down = True
        await asyncio.sleep(3600)
        assert engine.phase(run_id) == "reporting"


async def test_the_next_daemon_has_the_receipt(tmp_path: Path) -> None:
    prefect, spawner = FakePrefect(major=3), FakeSpawner()
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        run_id = await start(engine)
        prefect.down = True
        spawner.exit(run_id, receipt=COMPLETED)
        await engine.until(lambda: engine.phase(run_id) == "reporting")
        (record,) = engine.journal.unfinished()
        known = engine.registry.entries()
    assert (record.phase, record.receipt) == (Phase.REPORTING, COMPLETED)
    left_behind(tmp_path, replace(record))
    spawner.forget_all()
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        resume(engine, known)
        assert (await engine.until_done(run_id)).api_state is StateType.COMPLETED


async def test_a_run_that_the_api_aborted_says_so(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = await start(engine)
        spawner.exit(run_id, receipt=Receipt())
        assert (await engine.until_done(run_id)).words == "exited 0: Prefect's API aborted the run"
