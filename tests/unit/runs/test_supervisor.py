"""supervisor.py around a FakePrefect and a FakeSpawner, by a clock that jumps: who is claimed, what is contained."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from runnerd.core.machine import Phase
from runnerd.core.prefect import FlowRun, StateType
from runnerd.core.settings import Settings
from tests.kits.engine import Engine, events, fake_engine, running, start
from tests.kits.engine_parts import Interfering
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.jump_loop import START_S
from tests.kits.nouns import fake_api

# --- a life -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("major", [2, 3])
async def test_from_its_offer_to_its_report(tmp_path: Path, major: int) -> None:
    async with fake_engine(tmp_path, prefect=FakePrefect(major=major)) as (engine, spawner):
        run_id = await start(engine)
        engine.prefect.set_state(run_id, "COMPLETED")
        spawner.exit(run_id, code=0)
        record = await engine.until_done(run_id)
        assert (record.phase, record.api_state, record.words) == (Phase.DONE, StateType.COMPLETED, "exited 0")
        assert (record.deployment, record.flow, record.attempt) == ("nightly", "etl", 1)
        assert events(engine, run_id) == ["claiming", "claim won", "starting", "started", "exited", "told"]
        assert engine.prefect.history[run_id] == ["Scheduled", "Pending", "Running", "Completed"]
        assert spawner.records == {}, "the spawner was told to forget it"
        phases = [record.phase for record in engine.changes]
        assert phases == sorted(phases, key=list(Phase).index)


async def test_a_second_offer_of_a_run_under_way_is_no_second_claim(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = await start(engine)
        assert engine.offer(run_id, run_id) == ()
        assert len(spawner.started) == 1


async def test_a_retry_here_is_another_attempt(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = await start(engine)
        engine.prefect.set_state(run_id, "SCHEDULED", "AwaitingRetry")
        spawner.exit(run_id)
        assert (await engine.until_done(run_id)).api_state is StateType.SCHEDULED
        assert engine.offer(run_id) == (run_id,)
        await engine.until(lambda: running(engine, run_id))
        assert [spec.attempt for spec in spawner.runs_of(run_id)] == [1, 2]
        engine.prefect.set_state(run_id, "COMPLETED")
        spawner.exit(run_id)
        assert (await engine.until_done(run_id)).attempt == 2


async def test_a_lease_is_renewed_until_the_process_does_it(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, _):
        deployment_id = engine.deploy(concurrency_limit=1)
        options = {"collision_strategy": "ENQUEUE"}
        engine.prefect.deployments[deployment_id] |= {"concurrency_limit": 1, "concurrency_options": options}
        run_id = engine.add_run(deployment_id)
        assert engine.offer(run_id) == (run_id,)
        await asyncio.sleep(250.0)
        (lease,) = engine.prefect.leases
        assert engine.prefect.renewed == [lease] * 3, "after 20, 120 and 220 seconds"
        engine.prefect.set_state(run_id, "RUNNING")
        await asyncio.sleep(600.0)
        assert engine.prefect.renewed == [lease] * 3


# --- offers -----------------------------------------------------------------------------------------------------


async def test_slots_are_counted_from_what_is_live(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, runs=2) as (engine, spawner):
        deployment_id = engine.deploy()
        ids = [engine.add_run(deployment_id) for _ in range(3)]
        assert engine.offer(*ids) == tuple(ids[:2])
        await engine.until(lambda: len(spawner.live()) == 2)
        assert engine.offer(ids[2]) == ()
        spawner.exit(ids[0])
        await engine.until_done(ids[0])
        assert engine.offer(ids[2]) == (ids[2],)


async def test_start_rate_says_when_to_come_back(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, start_rate=0.5) as (engine, _):
        deployment_id = engine.deploy()
        ids = [engine.add_run(deployment_id) for _ in range(3)]
        runs = await engine.api.scheduled_runs(deployment_ids=[deployment_id], before=engine.now() + timedelta(hours=1))
        first = engine.supervisor.offer(runs)
        assert (first.claimed, first.wait_s) == ((ids[0],), 2.0)
        assert first.skipped == dict.fromkeys(ids[1:], "limits.start_rate is reached")
        await asyncio.sleep(2.0)
        assert engine.offer(*ids) == (ids[1],)
        engine.settings = _faster(engine)
        assert engine.offer(*ids) == (), "a new rate begins with nothing saved up"
        await asyncio.sleep(0.02)
        assert engine.offer(*ids) == (ids[2],)


def _faster(engine: Engine) -> Settings:
    return replace(engine.settings, limits=replace(engine.settings.limits, start_rate_per_s=100.0))


async def test_while_draining_nothing_is_claimed(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, _):
        run_id = engine.add_run(engine.deploy())
        engine.supervisor.draining = "this host is draining: upkeep"
        runs = await engine.api.runs_of([run_id], states=[StateType.SCHEDULED])
        assert engine.supervisor.offer(runs).skipped == {run_id: "this host is draining: upkeep"}
        assert engine.journal.run(run_id) is None
        engine.supervisor.draining = None
        assert engine.offer(run_id) == (run_id,)


async def test_one_asked_for_by_name_is_claimed_whatever_the_limits(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, runs=0) as (engine, _):
        run_id = engine.add_run(engine.deploy())
        assert engine.offer(run_id) == ()
        found = await engine.api.read_run(run_id)
        assert found is not None
        assert engine.supervisor.claim_now(found)
        assert not engine.supervisor.claim_now(found)
        await engine.until(lambda: running(engine, run_id))


# --- claims that are lost ---------------------------------------------------------------------------------------


async def test_a_lost_claim_leaves_nothing_and_is_not_asked_for_at_every_poll(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = engine.add_run(engine.deploy())
        engine.prefect.set_state(run_id, "PENDING")
        tries = []
        for _ in range(600):
            if engine.offer(run_id):
                tries.append(engine.clock() - START_S)
            await asyncio.sleep(1.0)
            assert engine.journal.run(run_id) is None
        assert tries == [0.0, 20.0, 60.0, 140.0, 300.0], "at most so long a wait, and twice as long each time"
        assert (spawner.started, engine.supervisor.records()) == ([], [])


async def test_a_run_that_was_won_at_last_starts_anew_with_refusals(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = engine.add_run(engine.deploy())
        engine.prefect.set_state(run_id, "PENDING")
        assert engine.offer(run_id)
        await engine.until(lambda: engine.supervisor.run(run_id) is None)
        engine.prefect.set_state(run_id, "SCHEDULED")
        await asyncio.sleep(20.0)
        assert engine.offer(run_id)
        await engine.until(lambda: running(engine, run_id))
        engine.prefect.set_state(run_id, "SCHEDULED", "AwaitingRetry")
        spawner.exit(run_id)
        await engine.until_done(run_id)
        assert engine.offer(run_id), "the earlier refusal is forgotten"


async def test_a_lost_claim_keeps_what_was_known_of_the_run(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = await start(engine)
        engine.prefect.set_state(run_id, "SCHEDULED", "AwaitingRetry")
        spawner.exit(run_id)
        first = await engine.until_done(run_id)
        engine.prefect.set_state(run_id, "PENDING")
        assert engine.offer(run_id)
        await engine.until(lambda: engine.supervisor.run(run_id) is None)
        assert engine.journal.run(run_id) == first


@pytest.mark.parametrize("status", [409, 422])
async def test_a_claim_the_api_rejects_is_lost(tmp_path: Path, status: int) -> None:
    async with fake_engine(tmp_path) as (engine, _):
        run_id = engine.add_run(engine.deploy())
        engine.prefect.trouble("set_state", status=status)
        assert engine.offer(run_id)
        await engine.until(lambda: engine.supervisor.run(run_id) is None)
        assert engine.journal.run(run_id) is None
        assert "claim lost" in engine.lines.events("info")


# --- what cannot be started -------------------------------------------------------------------------------------


async def test_what_cannot_be_launched_crashed(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        engine.launcher.failure = "no such user etl"  # type: ignore[attr-defined]
        run_id = engine.add_run(engine.deploy())
        engine.offer(run_id)
        record = await engine.until_done(run_id)
        assert (record.words, record.exit) == ("could not start: no such user etl", None)
        assert engine.prefect.runs[run_id]["state"]["message"] == "could not start: no such user etl"
        assert engine.prefect.state_of(run_id) == "CRASHED"
        assert spawner.started == []


@pytest.mark.parametrize("how", ["refuses", "start_error"])
async def test_what_the_spawner_cannot_start_crashed(tmp_path: Path, how: str) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        setattr(spawner, how, "no such interpreter /opt/x")
        run_id = engine.add_run(engine.deploy())
        engine.offer(run_id)
        record = await engine.until_done(run_id)
        assert record.words == "could not start: no such interpreter /opt/x"
        assert engine.prefect.state_of(run_id) == "CRASHED"
        assert spawner.records == {}


# --- what goes wrong in one run ---------------------------------------------------------------------------------


class Faulty(Interfering):
    """Raises what nobody expects while the run of this name is reported."""

    faults = 2

    async def read_run(self, run_id: str) -> FlowRun | None:
        if self._prefect.runs[run_id]["name"] == "faulty" and self.faults and self._claimed(run_id):
            self.faults -= 1
            raise RuntimeError("this is the fault under test")
        return await self._api.read_run(run_id)


async def test_an_exception_in_one_run_concerns_no_other(tmp_path: Path) -> None:
    prefect = FakePrefect(major=3)
    api = Faulty(fake_api(prefect), prefect, [])
    async with fake_engine(tmp_path, prefect=prefect, run_api=api) as (engine, spawner):
        bad, good = await start(engine, name="faulty"), await start(engine)
        for run_id in (bad, good):
            prefect.set_state(run_id, "COMPLETED")
            spawner.exit(run_id)
        assert (await engine.until_done(good)).api_state is StateType.COMPLETED
        assert engine.phase(bad) == "reporting"
        began = engine.clock()
        assert (await engine.until_done(bad)).api_state is StateType.COMPLETED
        assert engine.clock() - began == pytest.approx(15.0, abs=0.5), "taken up again after 5 s, then 10 s"
        assert engine.supervisor.contained == 2
        traces = [line["exception"] for line in engine.lines.all() if "exception" in line]
        assert ["this is the fault under test" in trace for trace in traces] == [True, True]


# --- the journal ------------------------------------------------------------------------------------------------


async def test_what_cannot_be_recorded_is_not_claimed(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        ids = [engine.add_run(engine.deploy(name)) for name in "ab"]
        engine.journal.close()
        runs = await engine.api.runs_of(ids, states=[StateType.SCHEDULED])
        offered = engine.supervisor.offer(runs)
        assert offered.claimed == ()
        assert set(offered.skipped) == set(ids)
        assert "cannot" in (engine.supervisor.record_problem or "")
        assert engine.lines.events("error") == ["cannot claim new runs"]
        assert [state for run_id in ids for state in engine.prefect.history[run_id]] == ["Scheduled"] * 2
        assert spawner.started == []


ROOMY = (4096, 4096, 9999, 9999, 9999, 99, 99, 99, 0, 255)  # as os.statvfs reports a filesystem
FULL = (4096, 4096, 9999, 9, 9, 99, 99, 99, 0, 255)
WITHOUT_FILES = (4096, 4096, 9999, 9999, 9999, 99, 2, 2, 0, 255)


@pytest.mark.parametrize(("disk", "why"), [(FULL, "36 kB are free"), (WITHOUT_FILES, "can have no more files")])
async def test_what_the_disk_has_no_room_for_is_not_claimed(tmp_path: Path, disk: tuple[int, ...], why: str) -> None:
    async with fake_engine(tmp_path) as (engine, _):
        run_id = engine.add_run(engine.deploy())
        engine.disk = os.statvfs_result(disk)
        await engine.room.measure()
        assert engine.offer(run_id) == ()
        assert why in (engine.supervisor.record_problem or "")
        engine.disk = os.statvfs_result(ROOMY)
        await engine.room.measure()
        assert engine.offer(run_id) == (run_id,)


async def test_a_run_that_the_spawner_cannot_record_waits_for_room(tmp_path: Path) -> None:
    """It is claimed already, and a full disk is no fault of its: it starts when there is room, and can be cancelled."""
    async with fake_engine(tmp_path) as (engine, spawner):
        spawner.full = True
        first, second = (engine.add_run(engine.deploy(name)) for name in "ab")
        engine.offer(first, second)
        await asyncio.sleep(60.0)
        assert [engine.prefect.state_of(run_id) for run_id in (first, second)] == ["PENDING", "PENDING"]
        assert engine.lines.events("error") == ["a run waits for disk space"] * 2, "once each"
        engine.supervisor.cancel([second])
        await engine.until_done(second)
        assert engine.prefect.state_of(second) == "CANCELLED"
        spawner.full = False
        await engine.until(lambda: running(engine, first))
