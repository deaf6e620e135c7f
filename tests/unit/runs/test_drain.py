"""drain.py by a clock that jumps: waiting, ending, killing, and what a stopping daemon does not wait for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from runnerd.core.machine import Intent
from runnerd.runs.drain import EXIT_S, REPORT_S
from tests.kits.engine import Engine, at, fake_engine, running, start
from tests.kits.fakes.fake_spawner import FakeSpawner
from tests.kits.nouns import Json

# --- runnerctl drain ----------------------------------------------------------------------------------------------


@asynccontextmanager
async def keeping(folder: Path, **changes: Json) -> AsyncIterator[tuple[Engine, FakeSpawner]]:
    """An engine whose drain is kept, as a daemon's is."""
    async with fake_engine(folder, **changes) as (engine, spawner):
        loop = asyncio.create_task(engine.drain.run())
        try:
            yield engine, spawner
            assert not loop.done()
        finally:
            loop.cancel()
            await asyncio.wait([loop])


async def test_a_drain_without_a_time_limit_ends_nothing(tmp_path: Path) -> None:
    async with keeping(tmp_path) as (engine, spawner):
        run_id = await start(engine)
        engine.drain.begin(reason="upkeep", timeout_s=None)
        other = engine.add_run(engine.deploy("other"))
        assert engine.offer(other) == ()
        assert engine.supervisor.draining == "this host is draining: upkeep"
        assert engine.drain.draining is not None
        assert (engine.drain.draining.reason, engine.drain.draining.until) == ("upkeep", None)
        await asyncio.sleep(86400)
        assert running(engine, run_id)
        engine.drain.end()
        assert (engine.drain.draining, engine.supervisor.draining) == (None, None)
        assert engine.offer(other) == (other,)
        assert spawner.stops == []


async def test_when_its_time_is_up_what_still_runs_is_ended(tmp_path: Path) -> None:
    async with keeping(tmp_path) as (engine, spawner):
        quick, slow = await start(engine), await start(engine, engine.deploy("slow"))
        began = at(engine)
        engine.drain.begin(reason="upkeep", timeout_s=60.0)
        await asyncio.sleep(30)
        engine.prefect.set_state(quick, "COMPLETED")
        spawner.exit(quick)
        assert (await engine.until_done(quick)).intent is None
        assert (await engine.until_done(slow)).intent is Intent.EVICT
        assert at(engine) - began == pytest.approx(60.0, abs=0.3)
        await asyncio.sleep(1000)
        assert engine.drain.draining is not None, "it goes on until somebody says undrain"


async def test_undrained_in_time(tmp_path: Path) -> None:
    async with keeping(tmp_path) as (engine, spawner):
        run_id = await start(engine)
        engine.drain.begin(reason="upkeep", timeout_s=60.0)
        await asyncio.sleep(59)
        engine.drain.end()
        await asyncio.sleep(1000)
        assert running(engine, run_id)
        assert spawner.stops == []


@pytest.mark.parametrize(("first", "second", "ended"), [(60.0, 500.0, 510.0), (500.0, 60.0, 70.0), (None, 60.0, 70.0)])
async def test_the_last_word_counts(tmp_path: Path, first: float | None, second: float, ended: float) -> None:
    async with keeping(tmp_path) as (engine, _):
        run_id = await start(engine)
        began = at(engine)
        engine.drain.begin(reason="a", timeout_s=first)
        await asyncio.sleep(10)
        engine.drain.begin(reason="b", timeout_s=second)
        await engine.until_done(run_id)
        assert at(engine) - began == pytest.approx(ended, abs=0.3)


async def test_at_once(tmp_path: Path) -> None:
    async with keeping(tmp_path) as (engine, _):
        run_id = await start(engine)
        engine.drain.begin(reason="now", timeout_s=0.0)
        assert (await engine.until_done(run_id)).intent is Intent.EVICT


# --- a daemon that stops ------------------------------------------------------------------------------------------


class Stopping:
    """`finish` under way: when it returned, and when it asked for more time."""

    def __init__(self, engine: Engine, *, timeout_s: float | None = 30.0) -> None:
        self.engine = engine
        self.hurry: asyncio.Queue[None] = asyncio.Queue()
        self.extended: list[float] = []
        self.began = at(engine)
        engine.drain.begin(reason="the host is stopping", timeout_s=timeout_s)
        self.task = asyncio.create_task(
            engine.drain.finish(hurry=self.hurry, extend=lambda: self.extended.append(at(engine)))
        )

    async def took(self) -> float:
        await self.task
        gaps = [after - before for before, after in zip([self.began, *self.extended], self.extended, strict=False)]
        assert max(gaps) <= 5.001, "systemd would have lost its patience"
        return at(self.engine) - self.began


async def test_with_nothing_to_do(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, _):
        assert await Stopping(engine).took() == 0.0


async def test_it_waits_for_what_runs(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = await start(engine)
        stopping = Stopping(engine)
        await asyncio.sleep(20)
        engine.prefect.set_state(run_id, "COMPLETED")
        spawner.exit(run_id)
        assert await stopping.took() == pytest.approx(20.0, abs=0.1)
        assert (engine.prefect.state_of(run_id), spawner.stops) == ("COMPLETED", [])


async def test_it_ends_what_runs_too_long(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        spawner.stubborn = True
        run_id = await start(engine, engine.deploy(run={"stop_timeout_s": 100.0}))
        assert await Stopping(engine).took() == pytest.approx(130.0, abs=0.2)
        assert engine.prefect.state_of(run_id) == "CANCELLED"


async def test_somebody_in_a_hurry_goes_on_to_the_next_step(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        spawner.stubborn = True
        run_id = await start(engine, engine.deploy(run={"stop_timeout_s": 1000.0}))
        stopping = Stopping(engine, timeout_s=1000.0)
        await asyncio.sleep(7)
        assert engine.phase(run_id) == "running"
        stopping.hurry.put_nowait(None)
        await asyncio.sleep(7)
        assert engine.phase(run_id) == "stopping"
        stopping.hurry.put_nowait(None)
        assert await stopping.took() == pytest.approx(14.0, abs=0.2)
        assert [stop.timeout_s for stop in spawner.stops] == [None, 0.0]
        assert engine.prefect.state_of(run_id) == "CANCELLED"


async def test_with_no_time_limit_it_waits_until_somebody_is_in_a_hurry(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, _):
        await start(engine)
        stopping = Stopping(engine, timeout_s=None)
        await asyncio.sleep(86400)
        assert not stopping.task.done()
        stopping.hurry.put_nowait(None)
        assert await stopping.took() == pytest.approx(86400.0, abs=0.2)


async def test_it_does_not_wait_for_an_api_that_is_away(tmp_path: Path) -> None:
    """What could not be told is in the journal, for the next daemon."""
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = await start(engine)
        engine.prefect.down = True
        claiming = engine.add_run(engine.deploy("other"))
        engine.offer(claiming)
        await asyncio.sleep(60)
        assert await Stopping(engine).took() == pytest.approx(30.0 + REPORT_S, abs=0.2)
        assert spawner.live() == []
        assert [engine.phase(one) for one in (run_id, claiming)] == ["reporting", "claiming"]
        assert {record.id for record in engine.journal.unfinished()} == {run_id, claiming}


async def test_a_run_in_its_timeout_s_grace_is_ended_by_hurrying_too(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        spawner.stubborn = True
        await start(engine, engine.deploy(run={"runtime_max_s": 5.0, "stop_timeout_s": 9999.0}))
        await asyncio.sleep(6)
        stopping = Stopping(engine)
        for _ in range(2):
            await asyncio.sleep(1)
            stopping.hurry.put_nowait(None)
        assert await stopping.took() < 3.0


# --- what a stop cannot end -----------------------------------------------------------------------------------------


@contextmanager
def unwritable(engine: Engine) -> Iterator[None]:
    """Every write to the journal fails, as on a full disk."""
    engine.journal._db.execute("PRAGMA query_only = ON")
    try:
        yield
    finally:
        engine.journal._db.execute("PRAGMA query_only = OFF")


async def test_a_stop_ends_though_the_journal_is_full(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = await start(engine, engine.deploy(run={"stop_timeout_s": 100.0}))
        with unwritable(engine):
            stopping = Stopping(engine)
            assert await stopping.took() == pytest.approx(30.0 + 100.0 + 2 * EXIT_S + REPORT_S, abs=0.2)
            assert stopping.task.result() == [run_id]
        assert spawner.live() == [run_id], "the next daemon adopts it"
        assert engine.lines.events("error").count("cannot record that a run is to be ended") == 1


async def test_a_stop_ends_what_can_be_recorded_again(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, _spawner):
        run_id = await start(engine)
        with unwritable(engine):
            stopping = Stopping(engine)
            await asyncio.sleep(40.0)
        assert await stopping.took() < 30.0 + 20.0
        assert stopping.task.result() == []
        assert engine.prefect.state_of(run_id) == "CANCELLED"


async def test_a_stop_ends_though_there_is_no_spawner(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = await start(engine, engine.deploy(run={"stop_timeout_s": 100.0}))
        spawner.down = True
        spawner.lose()
        stopping = Stopping(engine)
        assert await stopping.took() == pytest.approx(30.0 + 100.0 + 2 * EXIT_S + REPORT_S, abs=0.2)
        assert stopping.task.result() == [run_id]


async def test_the_end_of_a_drain_is_recorded_once_the_journal_has_room(tmp_path: Path) -> None:
    async with keeping(tmp_path) as (engine, _):
        run_id = await start(engine)
        with unwritable(engine):
            engine.drain.begin(reason="upkeep", timeout_s=10.0)
            await asyncio.sleep(60.0)
            assert running(engine, run_id)
        assert (await engine.until_done(run_id)).intent is Intent.EVICT
