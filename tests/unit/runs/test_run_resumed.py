"""run.py: runs that a daemon resumes in the middle: a claim without an answer, a start unknown, a cancel since."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from runnerd.core.errors import ApiAway
from runnerd.core.machine import Phase, RunRecord
from runnerd.core.prefect import StateType
from runnerd.deployments.registry import Entry
from runnerd.prefect_api.answers import Claim
from tests.kits.engine import fake_engine, resume, running, start
from tests.kits.engine_parts import Interfering
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.fakes.fake_spawner import FakeSpawner
from tests.kits.journal import left_behind
from tests.kits.nouns import copied, fake_api, flow_run


async def starting(folder: Path, prefect: FakePrefect, spawner: FakeSpawner) -> tuple[str, RunRecord, list[Entry]]:
    """A run whose start is in the journal and whose process nobody has written down yet."""
    async with fake_engine(folder, prefect=prefect, spawner=spawner) as (engine, _):
        run_id = engine.add_run(engine.deploy())
        engine.offer(run_id)
        await engine.until(lambda: running(engine, run_id))
        (record,) = engine.journal.unfinished()
        known = engine.registry.entries()
    return run_id, replace(record, phase=Phase.STARTING, identity=None, pgid=None, started_at=None), known


# --- started or not ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("boot", ["boot-0", "boot-1"])
async def test_no_flow_code_had_run_so_it_is_started(tmp_path: Path, boot: str) -> None:
    spawner, prefect = FakeSpawner(), FakePrefect(major=3)
    run_id, record, known = await starting(tmp_path, prefect, spawner)
    left_behind(tmp_path, record, boot_id=boot)
    spawner.forget_all()
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        resume(engine, known)
        await engine.until(lambda: running(engine, run_id))
        assert len(spawner.runs_of(run_id)) == 2
        assert prefect.history[run_id] == ["Scheduled", "Pending"]


@pytest.mark.parametrize(
    ("boot", "words"), [("boot-0", "the host restarted"), ("boot-1", "ended, exit status unknown")]
)
async def test_flow_code_had_run_so_it_is_not_started_again(tmp_path: Path, boot: str, words: str) -> None:
    """It was spawned, said RUNNING, and its daemon died before it could write down that it was spawned."""
    spawner, prefect = FakeSpawner(), FakePrefect(major=3)
    run_id, record, known = await starting(tmp_path, prefect, spawner)
    prefect.set_state(run_id, "RUNNING")
    left_behind(tmp_path, record, boot_id=boot)
    spawner.forget_all()
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        resume(engine, known)
        assert (await engine.until_done(run_id)).words == words
        assert len(spawner.runs_of(run_id)) == 1
        assert prefect.history[run_id] == ["Scheduled", "Pending", "Running", "Crashed"]


async def test_a_start_that_the_spawner_knows_of_is_taken_over(tmp_path: Path) -> None:
    spawner, prefect = FakeSpawner(), FakePrefect(major=3)
    run_id, record, known = await starting(tmp_path, prefect, spawner)
    left_behind(tmp_path, record)
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        resume(engine, known)
        await engine.until(lambda: running(engine, run_id))
        assert len(spawner.runs_of(run_id)) == 1


async def test_whether_it_ran_is_asked_of_the_api_for_as_long_as_it_takes(tmp_path: Path) -> None:
    spawner, prefect = FakeSpawner(), FakePrefect(major=3)
    run_id, record, known = await starting(tmp_path, prefect, spawner)
    left_behind(tmp_path, record, boot_id="boot-0")
    spawner.forget_all()
    prefect.down = True
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        resume(engine, known)
        await asyncio.sleep(3600.0)
        assert engine.phase(run_id) == "starting"
        prefect.down = False
        await engine.until(lambda: running(engine, run_id))


# --- a claim whose answer was lost --------------------------------------------------------------------------------


class CancelledMeanwhile(Interfering):
    """An api whose first claim is won and its answer lost; before anything else is asked, the run is cancelled."""

    lost = False

    async def claim(self, run_id: str, *, transition_id: str) -> Claim:
        claim = await super().claim(run_id, transition_id=transition_id)
        if not self.lost:
            self.lost = True
            self._prefect.set_state(run_id, "CANCELLING")
            raise ApiAway("the connection broke in the middle of an answer")
        return claim


@pytest.mark.parametrize("by_id", [False, True])
@pytest.mark.parametrize("major", [2, 3])
async def test_a_claim_without_an_answer_on_a_run_that_is_cancelled_since(
    tmp_path: Path, major: int, by_id: bool
) -> None:
    """Nobody else would ever end it: 2.20 leaves it Cancelling for good."""
    prefect = FakePrefect(major=major)
    api = CancelledMeanwhile(fake_api(prefect), prefect, [])
    async with fake_engine(tmp_path, prefect=prefect, run_api=api) as (engine, spawner):
        run_id = engine.add_run(engine.deploy())
        if by_id:  # which is claimed without reading its state, so that the claim is repeated
            assert engine.supervisor.claim_now(flow_run(prefect, run_id))
        else:
            engine.offer(run_id)
        record = await engine.until_done(run_id)
        assert (record.api_state, record.words) == (StateType.CANCELLED, "cancelled before it started")
        assert prefect.history[run_id] == ["Scheduled", "Pending", "Cancelling", "Cancelled"]
        assert spawner.started == []


async def test_a_claim_that_is_found_to_be_won_is_not_proposed_again(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, _):
        run_id = engine.add_run(engine.deploy())
        engine.prefect.trouble("set_state", after=True, times=1)  # it acts, and nobody hears
        engine.offer(run_id)
        await engine.until(lambda: running(engine, run_id))
        assert copied(engine.prefect).count(f"POST /flow_runs/{run_id}/set_state") == 1
        assert engine.prefect.history[run_id] == ["Scheduled", "Pending"]


async def test_a_run_that_is_cancelled_after_its_claim_was_found_to_be_won_is_ended(tmp_path: Path) -> None:
    prefect = FakePrefect(major=2)
    api = Interfering(fake_api(prefect), prefect, [("CANCELLING", None)])
    async with fake_engine(tmp_path, prefect=prefect, run_api=api) as (engine, spawner):
        run_id = engine.add_run(engine.deploy())
        prefect.trouble("set_state", after=True, times=1)
        engine.offer(run_id)
        watching = asyncio.create_task(engine.cancellations.run())
        record = await engine.until_done(run_id)
        watching.cancel()
        assert record.api_state is StateType.CANCELLED
        assert prefect.history[run_id] == ["Scheduled", "Pending", "Cancelling", "Cancelled"]
        assert spawner.live() == []


async def test_somebody_else_s_claim_on_a_run_that_is_cancelled_is_theirs(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = engine.add_run(engine.deploy())
        engine.prefect.set_state(run_id, "PENDING")
        engine.prefect.set_state(run_id, "CANCELLING")
        engine.offer(run_id)
        await engine.supervisor.emptied.wait()
        assert engine.prefect.state_of(run_id) == "CANCELLING"
        assert (spawner.started, engine.journal.run(run_id)) == ([], None)


# --- a cancel that the API has not heard of -------------------------------------------------------------------------


@pytest.mark.parametrize("then", ["cancel", "crash", "reschedule"])
async def test_a_child_is_told_why_it_ends(tmp_path: Path, then: str) -> None:
    async with fake_engine(tmp_path, then=then) as (engine, spawner):
        await start(engine)
        engine.supervisor.evict_all()
        await engine.supervisor.emptied.wait()
        assert [stop.prefect_intent for stop in spawner.stops] == [None if then == "crash" else then]


async def test_a_local_cancel_is_announced_once(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = await start(engine)
        spawner.stubborn = True
        for _ in range(3):
            engine.supervisor.cancel([run_id])
            await engine.until(lambda: engine.phase(run_id) == "stopping")
        await engine.until(lambda: engine.prefect.state_of(run_id) == "CANCELLING")
        await engine.until_done(run_id)
        assert engine.prefect.history[run_id][2:] == ["Running", "Cancelling", "Cancelled"]
        assert [stop.prefect_intent for stop in spawner.stops] == ["cancel"]


async def test_a_cancel_does_not_wait_for_an_api_that_is_away(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = await start(engine)
        engine.prefect.down = True
        engine.supervisor.cancel([run_id])
        await engine.until(lambda: engine.phase(run_id) == "reporting")
        assert [stop.reason for stop in spawner.stops] == ["cancel"]
        engine.prefect.down = False
        assert (await engine.until_done(run_id)).api_state is StateType.CANCELLED


async def test_a_cancel_of_a_run_that_has_just_completed_leaves_it_so(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = await start(engine)
        engine.prefect.set_state(run_id, "COMPLETED")
        engine.supervisor.cancel([run_id])
        assert (await engine.until_done(run_id)).api_state is StateType.COMPLETED
        assert engine.prefect.history[run_id][-1] == "Completed"
        assert len(spawner.stops) == 1
