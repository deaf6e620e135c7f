"""When runs are started ahead of their time, by a clock that jumps: learnt from earlier starts, within prefetch."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from runnerd.core.machine import RunRecord
from runnerd.core.process import LaunchSpec
from runnerd.core.record_feed import RecordFeed
from runnerd.polling.learning import learn_leads
from tests.kits.engine import PROCESSORS, Engine, at, fake_engine, polling, started_at
from tests.kits.engine_parts import SpecLauncher
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.fakes.fake_spawner import FakeSpawner
from tests.kits.nouns import Json, a_record
from tests.kits.pools import kick, pool_settings, pooled, with_pools

Host = tuple[Engine, FakeSpawner]


@asynccontextmanager
async def host(folder: Path, *, prefect: FakePrefect | None = None, **changes: Json) -> AsyncIterator[Host]:
    """Polls a thousand seconds apart, a prefetch of 20 s, outputs in `folder`."""

    class Launcher(SpecLauncher):
        def spec(self, record: RunRecord) -> LaunchSpec | str:
            spec = super().spec(record)
            return spec if isinstance(spec, str) else replace(spec, output=str(folder / f"{record.id}.log"))

    defaults = {"poll_interval_s": 1000.0, "prefetch_s": 20.0}
    async with polling(folder, prefect=prefect, launcher=Launcher, **{**defaults, **changes}) as (engine, spawner):
        yield engine, spawner


def due(engine: Engine, deployment_id: str, in_s: float) -> str:
    run_id = engine.add_run(deployment_id, in_s=in_s)
    engine.wakes.poll_now()
    return run_id


async def run_once(host: Host, deployment_id: str, *, ready_s: float | None, text: str = "") -> float:
    """Have a run of the deployment claimed, ready after so many seconds and ended; how early it was started."""
    engine, spawner = host
    began = at(engine)
    run_id = due(engine, deployment_id, 100.0)
    early_s = began + 100.0 - await started_at(engine, run_id)
    run = engine.supervisor.run(run_id)
    assert run is not None and run.record.output is not None
    written = Path(f"{run.record.output}.ready")
    if ready_s is not None:
        text = f"{run.record.created_at.timestamp() + ready_s:.3f}\n"
    written.write_text(text)
    await asyncio.sleep(100.0)
    engine.prefect.set_state(run_id, "COMPLETED")
    spawner.exit(run_id)
    await engine.until_done(run_id)
    assert not written.exists()
    return early_s


async def test_a_deployment_s_runs_are_started_as_early_as_its_starts_have_taken(tmp_path: Path) -> None:
    async with host(tmp_path) as (engine, spawner):
        quick, slow = engine.deploy("quick"), engine.deploy("slow")
        for early_s in (20.0, 3.0, 3.0):  # as early as is allowed, until something is known
            assert await run_once((engine, spawner), quick, ready_s=2.0) == pytest.approx(early_s, abs=0.2)
        for early_s in (20.0, 19.25, 19.25):
            assert await run_once((engine, spawner), slow, ready_s=15.0) == pytest.approx(early_s, abs=0.2)
        assert await run_once((engine, spawner), quick, ready_s=2.0) == pytest.approx(3.0, abs=0.2)


async def test_prefetch_is_the_bound(tmp_path: Path) -> None:
    async with host(tmp_path, prefetch_s=10.0) as (engine, spawner):
        deployment_id = engine.deploy()
        for _ in range(3):
            assert await run_once((engine, spawner), deployment_id, ready_s=60.0) == pytest.approx(10.0, abs=0.2)


async def test_one_odd_start_changes_one_start(tmp_path: Path) -> None:
    async with host(tmp_path) as (engine, spawner):
        deployment_id = engine.deploy()
        early = [await run_once((engine, spawner), deployment_id, ready_s=took) for took in (2.0, 2.0, 12.0, 2.0, 2.0)]
        assert early == [pytest.approx(seconds, abs=0.2) for seconds in (20.0, 3.0, 3.0, 20.0, 3.0)]


@pytest.mark.parametrize("text", ["", "soon", "1e400", "0"])
async def test_what_a_flow_s_user_has_written_there_teaches_nothing(tmp_path: Path, text: str) -> None:
    async with host(tmp_path) as (engine, spawner):
        deployment_id = engine.deploy()
        for _ in range(2):
            early_s = await run_once((engine, spawner), deployment_id, ready_s=None, text=text)
            assert early_s == pytest.approx(20.0, abs=0.2)


async def test_a_clock_that_was_set_back_during_a_start_teaches_nothing(tmp_path: Path) -> None:
    async with host(tmp_path) as (engine, spawner):
        deployment_id = engine.deploy()
        await run_once((engine, spawner), deployment_id, ready_s=2.0)
        assert await run_once((engine, spawner), deployment_id, ready_s=-3600.0) == pytest.approx(3.0, abs=0.2)
        assert await run_once((engine, spawner), deployment_id, ready_s=2.0) == pytest.approx(3.0, abs=0.2)


async def test_what_was_learnt_outlives_the_daemon(tmp_path: Path) -> None:
    async with host(tmp_path) as (engine, spawner):
        deployment_id = engine.deploy()
        await run_once((engine, spawner), deployment_id, ready_s=15.0)
        await run_once((engine, spawner), deployment_id, ready_s=2.0)
        await run_once((engine, spawner), deployment_id, ready_s=2.0)
    async with fake_engine(tmp_path) as (engine, _):
        leads = learn_leads(journal=engine.journal, feed=RecordFeed(), processors=2)
        assert leads.lead_s(deployment_id, most_s=60.0) == pytest.approx(3.0, abs=0.01)
        assert leads.lead_s("another", most_s=60.0) == 60.0


async def test_a_journal_that_cannot_be_read_teaches_nothing(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, _):
        with sqlite3.connect(tmp_path / "journal.db") as db:
            db.execute("DROP TABLE runs")
        leads = learn_leads(journal=engine.journal, feed=RecordFeed(), processors=2)
        assert leads.lead_s("d-1", most_s=60.0) == 60.0


async def test_a_slow_start_takes_no_slot_from_a_run_that_is_due_earlier(tmp_path: Path) -> None:
    async with host(tmp_path, runs=1) as (engine, spawner):
        quick, slow = engine.deploy("quick"), engine.deploy("slow")
        await run_once((engine, spawner), quick, ready_s=2.0)
        await run_once((engine, spawner), slow, ready_s=14.0)  # so it is started 18 s early
        began = at(engine)
        behind, first = due(engine, slow, 105.0), due(engine, quick, 100.0)
        assert await started_at(engine, first) - began == pytest.approx(105.0 - 18.0, abs=0.2)
        assert engine.phase(behind) is None
        assert engine.poller.on_offer.waiting == {behind: "limits.runs 1 is reached"}


async def test_a_run_alone_is_not_started_for_a_slow_one_that_is_due_much_later(tmp_path: Path) -> None:
    async with host(tmp_path) as (engine, spawner):
        quick, slow = engine.deploy("quick"), engine.deploy("slow")
        await run_once((engine, spawner), quick, ready_s=2.0)
        await run_once((engine, spawner), slow, ready_s=14.0)
        began = at(engine)
        late, early = due(engine, slow, 130.0), due(engine, quick, 100.0)
        assert await started_at(engine, early) - began == pytest.approx(97.0, abs=0.2)
        assert await started_at(engine, late) - began == pytest.approx(112.0, abs=0.2)


async def test_many_runs_of_one_time_are_started_earlier(tmp_path: Path) -> None:
    async with host(tmp_path, prefetch_s=1000.0) as (engine, spawner):
        deployment_id = engine.deploy()
        await run_once((engine, spawner), deployment_id, ready_s=2.0)
        ids = [engine.add_run(deployment_id, in_s=900.0) for _ in range(100 * PROCESSORS)]
        began = at(engine)
        engine.wakes.poll_now()
        assert await started_at(engine, ids[0]) - began == pytest.approx(900.0 - 3.0 * 100, abs=1.0)


async def test_a_run_of_a_pool_is_started_by_its_deployment_s_starts(tmp_path: Path) -> None:
    async with host(tmp_path, prefect=with_pools(etl={}), prefetch_s=500.0) as (engine, spawner):
        kick(engine, pool_settings(prefetch_s=30.0))
        deployment_id = pooled(engine)
        assert await run_once((engine, spawner), deployment_id, ready_s=4.0) == pytest.approx(30.0, abs=0.2)
        assert await run_once((engine, spawner), deployment_id, ready_s=4.0) == pytest.approx(5.5, abs=0.2)


async def test_a_run_that_is_due_already_is_started_at_once_and_not_measured(tmp_path: Path) -> None:
    async with host(tmp_path) as (engine, spawner):
        deployment_id = engine.deploy()
        run_id = due(engine, deployment_id, -1.0)
        assert await started_at(engine, run_id) == pytest.approx(0.0, abs=0.2)
        engine.prefect.set_state(run_id, "COMPLETED")
        spawner.exit(run_id)
        record = await engine.until_done(run_id)
        assert (record.due_at, record.ready_s) == (None, None)
        assert await run_once((engine, spawner), deployment_id, ready_s=2.0) == pytest.approx(20.0, abs=0.2)


async def test_a_single_poll_starts_all_that_may_be_started(tmp_path: Path) -> None:
    async with host(tmp_path) as (engine, spawner):
        deployment_id = engine.deploy()
        await run_once((engine, spawner), deployment_id, ready_s=2.0)
        run_id, beyond = (engine.add_run(deployment_id, in_s=seconds) for seconds in (15.0, 25.0))
        assert (await engine.poller.poll_once()).claimed == (run_id,), "with --once, no later offer starts it in time"
        assert beyond in engine.poller.on_offer.runs


async def test_a_start_that_is_measured_is_in_the_journal(tmp_path: Path) -> None:
    async with host(tmp_path) as (engine, spawner):
        await run_once((engine, spawner), engine.deploy(), ready_s=2.5)
        (record,) = engine.journal.history()
        assert record.ready_s == pytest.approx(2.5, abs=0.001)
        assert record.due_at is not None and (record.due_at - record.created_at).total_seconds() == pytest.approx(20.0)
        assert a_record().ready_s is None
