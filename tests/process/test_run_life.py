"""Runs from their claim to their report, with a real spawner, real processes and a served FakePrefect."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from runnerd.core.machine import Phase
from runnerd.core.prefect import FlowRun, StateType
from runnerd.prefect_api.client import PrefectApi
from tests.kits.engine import events
from tests.kits.engine_parts import Interfering
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.run_life import Stage, begin, living, ran
from tests.kits.spawner import SpawnerUnderTest


@pytest.fixture(params=[2, 3])
def stage(request: pytest.FixtureRequest, spawner: SpawnerUnderTest) -> Iterator[Stage]:
    prefect = FakePrefect(major=request.param)
    with prefect.serve() as url:
        yield Stage(spawner, prefect, url)


# --- ends -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "state", "words"),
    [
        ("complete", "COMPLETED", "exited 0"),
        ("exit 0", "CRASHED", "exited 0"),
        ("exit 3", "CRASHED", "exited 3"),
        ("die", "CRASHED", "killed by SIGKILL"),
        ("suspend", "PAUSED", "exited 0"),
    ],
)
async def test_how_it_ends(stage: Stage, mode: str, state: str, words: str) -> None:
    async with stage.engine() as engine:
        run_id = begin(engine, mode)
        record = await engine.until_done(run_id)
        assert (record.words, record.phase, record.intent) == (words, Phase.DONE, None)
        assert (stage.prefect.state_of(run_id), record.api_state) == (state, state)
        assert ran(stage.spawner) == [run_id]
        assert record.identity is not None
        assert record.pgid == record.identity.pid
        assert record.exit is not None
        assert (record.exit.max_rss_bytes or 0) > 2**20
        assert await engine.link._ask(lambda client: client.list()) == []


async def test_one_that_cannot_start(stage: Stage) -> None:
    async with stage.engine() as engine:
        run_id = begin(engine, "complete", python="/opt/x/bin/python")
        record = await engine.until_done(run_id)
        assert record.words == "could not start: no such interpreter /opt/x/bin/python"
        assert stage.prefect.state_of(run_id) == "CRASHED"
        assert stage.prefect.runs[run_id]["state"]["message"] == record.words


async def test_many_at_once(stage: Stage) -> None:
    async with stage.engine(runs=20) as engine:
        ids = [begin(engine, mode) for mode in ["complete", "exit 1", "die"] * 4]
        for run_id in ids:
            await engine.until_done(run_id)
        assert sorted(ran(stage.spawner)) == sorted(ids)
        assert [stage.prefect.state_of(run_id) for run_id in ids] == ["COMPLETED", "CRASHED", "CRASHED"] * 4


# --- ending them --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "now", "words"),
    [
        ("wait", False, "cancelled; killed by SIGTERM"),
        ("stubborn", False, "cancelled; killed by SIGKILL"),
        ("stubborn", True, "cancelled; killed by SIGKILL"),
        ("wait", True, "cancelled; killed by SIGKILL"),
    ],
)
async def test_cancel(stage: Stage, mode: str, now: bool, words: str) -> None:
    async with stage.engine() as engine:
        run_id = begin(engine, mode, stop_timeout_s=3600.0 if now else 0.3)
        await stage.until_running(engine, run_id)
        for _ in range(2):
            engine.supervisor.cancel([run_id], now=now)
        record = await engine.until_done(run_id)
        assert (record.words, stage.prefect.state_of(run_id)) == (words, "CANCELLED")
        steps = events(engine, run_id)
        assert steps.count("cancel asked") == 1
        assert steps.count("kill" if now else "stop") == 1


async def test_cancelled_in_prefect(stage: Stage) -> None:
    async with stage.engine(poll_interval_s=0.05) as engine:
        watching = asyncio.create_task(engine.cancellations.run())
        run_id = begin(engine, "cancelling")
        record = await engine.until_done(run_id)
        assert (record.words, stage.prefect.state_of(run_id)) == ("cancelled; killed by SIGTERM", "CANCELLED")
        watching.cancel()
        await asyncio.wait([watching])


async def test_cancelled_before_it_starts(stage: Stage) -> None:
    async with stage.engine() as engine:
        run_id = begin(engine, "complete")
        engine.supervisor.cancel([run_id])
        record = await engine.until_done(run_id)
        assert (record.words, ran(stage.spawner)) == ("cancelled before it started", [])
        assert stage.prefect.history[run_id] == ["Scheduled", "Cancelled"], "it is not claimed for that"


async def test_cancelled_while_claiming(stage: Stage) -> None:
    async with stage.engine() as engine:
        stage.prefect.down = True
        run_id = begin(engine, "complete")
        await engine.until(lambda: len(stage.prefect.asked) > 2)
        engine.supervisor.cancel([run_id])
        assert engine.phase(run_id) == "claiming"
        stage.prefect.down = False
        assert (await engine.until_done(run_id)).words == "cancelled before it started"
        assert (stage.prefect.state_of(run_id), ran(stage.spawner)) == ("CANCELLED", [])


async def test_runtime_max(stage: Stage) -> None:
    async with stage.engine() as engine:
        run_id = begin(engine, "stubborn", runtime_max_s=1.0, stop_timeout_s=0.2)
        record = await engine.until_done(run_id)
        assert record.words == "ran longer than runtime_max 1s; killed by SIGKILL"
        state = stage.prefect.runs[run_id]["state"]
        assert (state["type"], state["name"]) == ("FAILED", "TimedOut")


# --- claims -------------------------------------------------------------------------------------------------------


async def test_of_two_rivals_exactly_one_runs_it(stage: Stage) -> None:
    other = SpawnerUnderTest(Path(tempfile.mkdtemp(prefix="rival-")))
    other.start()
    try:
        async with (
            living(stage.spawner, stage.prefect, stage.url) as one,
            living(other, stage.prefect, stage.url) as two,
        ):
            ids = []
            for _ in range(10):
                run_id = begin(one, "hold")
                entry = one.registry.by_id(stage.prefect.runs[run_id]["deployment_id"])
                assert entry is not None
                two.registry.put(entry)
                assert two.offer(run_id) == (run_id,)
                ids.append(run_id)
            for engine in (one, two):
                await engine.until(lambda its=engine: not any(r.phase == "claiming" for r in its.supervisor.records()))
            stage.go()
            (other.home / "go").touch()
            for engine in (one, two):
                await engine.until(engine.supervisor.emptied.is_set)
            assert sorted([*ran(stage.spawner), *ran(other)]) == sorted(ids)
            for run_id in ids:
                history = stage.prefect.history[run_id]
                assert history == ["Scheduled", "Pending", "Running", "Completed"]
                records = [engine.journal.run(run_id) for engine in (one, two)]
                assert [record is None for record in records].count(True) == 1
    finally:
        other.clear()
        shutil.rmtree(other.home)


async def test_a_claim_whose_answer_is_lost_still_runs_once(stage: Stage) -> None:
    async with stage.engine() as engine:
        stage.prefect.trouble("set_state", after=True)
        run_id = begin(engine, "complete")
        await engine.until_done(run_id)
        assert ran(stage.spawner) == [run_id]
        assert stage.prefect.history[run_id] == ["Scheduled", "Pending", "Running", "Completed"]


# --- the API is away ----------------------------------------------------------------------------------------------


async def test_away_at_the_report_and_back(stage: Stage) -> None:
    async with stage.engine() as engine:
        run_id = begin(engine, "hold-and-exit 4")
        await stage.until_running(engine, run_id)
        stage.prefect.down = True
        stage.go()
        await engine.until(lambda: engine.phase(run_id) == "reporting")
        asked = len(stage.prefect.asked)
        await engine.until(lambda: len(stage.prefect.asked) > asked + 2)
        assert stage.prefect.state_of(run_id) == "RUNNING"
        stage.prefect.down = False
        assert (await engine.until_done(run_id)).words == "exited 4"
        assert stage.prefect.state_of(run_id) == "CRASHED"


async def test_deleted_in_the_api_while_it_runs(stage: Stage) -> None:
    async with stage.engine() as engine:
        run_id = begin(engine, "hold")
        await stage.until_running(engine, run_id)
        del stage.prefect.runs[run_id]
        stage.go()
        record = await engine.until_done(run_id)
        assert (record.api_state, record.words) == (None, "exited 0")


# --- what goes wrong in one run -----------------------------------------------------------------------------------


class Faulty(Interfering):
    """Raises what nobody expects when this run is reported."""

    faulty: str | None = None

    async def read_run(self, run_id: str) -> FlowRun | None:
        if run_id == self.faulty and self._claimed(run_id):
            raise RuntimeError("this is the fault under test")
        return await self._api.read_run(run_id)


async def test_an_exception_in_one_run_concerns_no_other(stage: Stage) -> None:
    apis: list[Faulty] = []

    def faulty(api: PrefectApi) -> Faulty:
        apis.append(Faulty(api, stage.prefect, []))
        return apis[0]

    async with stage.engine(run_api=faulty) as engine:
        bad = apis[0].faulty = begin(engine, "complete")
        good = [begin(engine, "complete") for _ in range(3)]
        for run_id in good:
            assert (await engine.until_done(run_id)).api_state is StateType.COMPLETED
        await engine.until(lambda: engine.supervisor.contained == 1)
        assert engine.phase(bad) == "reporting"
