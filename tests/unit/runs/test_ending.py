"""run.py: how a run is ended and told of, by a clock that jumps."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from runnerd.core.machine import Intent, Phase
from runnerd.core.prefect import StateType
from runnerd.journal.journal import Journal
from tests.kits.engine import Engine, events, fake_engine, running, start
from tests.kits.engine_parts import Interfering
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.fakes.fake_spawner import FakeSpawner
from tests.kits.nouns import LogLines, fake_api, log_to

# --- ending -----------------------------------------------------------------------------------------------------


async def test_a_second_cancel_changes_nothing(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        spawner.stubborn = True
        run_id = await start(engine)
        for _ in range(3):
            engine.supervisor.cancel([run_id, "nobody"])
            await asyncio.sleep(5.0)
        assert engine.phase(run_id) == "stopping"
        assert [stop.reason for stop in spawner.stops] == ["cancel"]
        began = engine.clock()
        await engine.until_done(run_id)
        assert engine.clock() - began == pytest.approx(15.0, abs=0.3), "thirty seconds after the first"
        assert engine.prefect.state_of(run_id) == "CANCELLED"


async def test_cancelled_for_good_after_a_polite_try(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        spawner.stubborn = True
        run_id = await start(engine)
        engine.supervisor.cancel([run_id])
        await asyncio.sleep(3.0)
        engine.supervisor.cancel([run_id], now=True)
        record = await engine.until_done(run_id)
        assert [stop.timeout_s for stop in spawner.stops] == [None, 0.0]
        assert record.words == "cancelled; killed by SIGKILL"
        wanted = ["claiming", "claim won", "starting", "started", "cancel asked", "stop", "kill", "exited"]
        wanted += ["telling CANCELLED", "told"]
        assert events(engine, run_id) == wanted


async def test_cancelled_at_once(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = await start(engine)
        engine.supervisor.cancel([run_id], now=True)
        await engine.until_done(run_id)
        assert [stop.timeout_s for stop in spawner.stops] == [0.0]
        assert "stopping" not in [record.phase for record in engine.changes]


async def test_a_kill_that_was_asked_for_is_asked_for_again_after_a_restart(tmp_path: Path) -> None:
    """The daemon died between writing it down and asking: its successor must not be more polite."""
    spawner, prefect = FakeSpawner(), FakePrefect(major=3)
    spawner.stubborn = True
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        run_id = await start(engine)
        record = next(record for record in engine.changes[::-1] if record.id == run_id)
    journal = Journal(path=str(tmp_path / "journal.db"), now=lambda: record.created_at, log=log_to(LogLines()))
    journal.save(replace(record, phase=Phase.KILLING, intent=Intent.CANCEL), "kill")
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner, journal=journal) as (engine, _):
        engine.supervisor.adopt(engine.journal.unfinished())
        await engine.until_done(run_id)
        assert [stop.timeout_s for stop in spawner.stops] == [0.0]


async def test_runtime_max_is_told_as_such(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        spawner.stubborn = True
        run_id = await start(engine, engine.deploy(run={"runtime_max_s": 60.0, "stop_timeout_s": 7.0}))
        await asyncio.sleep(63.0)
        assert engine.phase(run_id) == "stopping"
        engine.supervisor.cancel([run_id])
        record = await engine.until_done(run_id)
        assert record.intent is Intent.TIMEOUT, "the first reason wins"
        assert record.words == "ran longer than runtime_max 1min; killed by SIGKILL"
        assert (engine.prefect.state_of(run_id), record.api_state_name) == ("FAILED", "TimedOut")
        assert spawner.stops == [], "the spawner's own doing"


def fail_once(engine: Engine, run_id: str) -> None:
    """Have the flow fail with a retry left, which its process then waits for."""
    engine.prefect.runs[run_id]["empirical_policy"]["retries"] = 1
    engine.prefect.set_state(run_id, "FAILED")
    assert engine.prefect.runs[run_id]["state"]["name"] == "AwaitingRetry"


async def test_a_process_that_dies_before_its_retry_is_a_crash(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = await start(engine)
        fail_once(engine, run_id)
        spawner.exit(run_id, signal=9)
        record = await engine.until_done(run_id)
        assert (record.words, engine.prefect.state_of(run_id)) == ("killed by SIGKILL", "CRASHED")


@pytest.mark.parametrize("waits", [True, False])
async def test_a_run_that_is_rescheduled_may_be_retried_by_any_host(tmp_path: Path, waits: bool) -> None:
    """Prefect reserves an in-process retry for its process, also after that has begun; the process is dead."""
    async with fake_engine(tmp_path) as (engine, _spawner):
        engine.settings = replace(engine.settings, stop=replace(engine.settings.stop, then="reschedule"))
        run_id = await start(engine)
        fail_once(engine, run_id)
        if not waits:
            engine.prefect.set_state(run_id, "RUNNING")
        engine.supervisor.evict_all()
        await engine.until_done(run_id)
        found = await engine.api.read_run(run_id)
        assert found is not None and found.state.type is StateType.SCHEDULED
        assert not found.retries_in_process and not found.state.needs_process
        assert engine.offer(run_id) == (run_id,)


@pytest.mark.parametrize(("memory_max_bytes", "limit"), [(2 * 2**30, " (memory_max 2G)"), (None, "")])
async def test_the_end_of_a_run_that_took_too_much_memory(
    tmp_path: Path, memory_max_bytes: int | None, limit: str
) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = await start(engine, engine.deploy(run={"memory_max_bytes": memory_max_bytes}))
        spawner.exit(run_id, signal=9, oom=True)
        record = await engine.until_done(run_id)
        assert record.words == f"killed: out of memory{limit}"
        assert engine.prefect.state_of(run_id) == "CRASHED"
        assert engine.prefect.runs[run_id]["state"]["message"] == record.words


async def test_the_end_of_a_run_that_a_daemon_adopts_says_its_memory_max(tmp_path: Path) -> None:
    spawner, prefect = FakeSpawner(), FakePrefect(major=3)
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        run_id = await start(engine, engine.deploy(run={"memory_max_bytes": 512 * 2**20}))
    spawner.exit(run_id, signal=9, oom=True)
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        engine.supervisor.adopt(engine.journal.unfinished())
        assert (await engine.until_done(run_id)).words == "killed: out of memory (memory_max 512M)"


@pytest.mark.parametrize("how", ["cancel", "evict"])
async def test_a_run_in_its_timeout_s_grace_can_still_be_killed_at_once(tmp_path: Path, how: str) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        spawner.stubborn = True
        run_id = await start(engine, engine.deploy(run={"runtime_max_s": 60.0, "stop_timeout_s": 3600.0}))
        await asyncio.sleep(61.0)
        began = engine.clock()
        if how == "cancel":
            engine.supervisor.cancel([run_id], now=True)
        else:
            engine.supervisor.evict_all(now=True)
        record = await engine.until_done(run_id)
        assert engine.clock() - began < 1.0
        assert (record.intent, record.api_state_name) == (Intent.TIMEOUT, "TimedOut")


@pytest.mark.parametrize(
    ("then", "state"), [("cancel", "CANCELLED"), ("crash", "CRASHED"), ("reschedule", "SCHEDULED")]
)
async def test_evicted_runs_are_told_as_stop_then_says(tmp_path: Path, then: str, state: str) -> None:
    async with fake_engine(tmp_path, then=then) as (engine, _):
        ids = [await start(engine, engine.deploy(name)) for name in "ab"]
        engine.supervisor.evict_all()
        for run_id in ids:
            record = await engine.until_done(run_id)
            assert record.words == "the host was stopped; killed by SIGTERM"
            assert engine.prefect.state_of(run_id) == state
        assert engine.supervisor.emptied.is_set()
        assert {line["reason"] for line in engine.lines.all() if "reason" in line} == {"drain"}


# --- cancelled on the way to its start --------------------------------------------------------------------------


async def test_cancelled_while_claiming(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        engine.prefect.down = True
        run_id = engine.add_run(engine.deploy())
        engine.offer(run_id)
        await asyncio.sleep(10.0)
        engine.supervisor.cancel([run_id])
        assert engine.phase(run_id) == "claiming"
        engine.prefect.down = False
        record = await engine.until_done(run_id)
        assert (record.words, spawner.started) == ("cancelled before it started", [])
        assert engine.prefect.history[run_id] == ["Scheduled", "Cancelled"], "there was no claim to undo"


async def test_cancelled_while_claiming_and_the_claim_is_lost(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, _):
        engine.prefect.down = True
        run_id = engine.add_run(engine.deploy())
        engine.offer(run_id)
        await asyncio.sleep(10.0)
        engine.supervisor.cancel([run_id])
        engine.prefect.set_state(run_id, "PENDING")
        engine.prefect.down = False
        await engine.until(lambda: engine.supervisor.run(run_id) is None)
        assert engine.prefect.history[run_id] == ["Scheduled", "Pending"], "not ours to cancel"
        assert engine.journal.run(run_id) is None


async def test_cancelled_while_the_spawner_starts_it(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        spawner.down = True
        spawner.lose()
        run_id = engine.add_run(engine.deploy())
        engine.offer(run_id)
        await engine.until(lambda: engine.phase(run_id) == "starting")
        await asyncio.sleep(5.0)
        engine.supervisor.cancel([run_id])
        spawner.down = False
        await engine.until_done(run_id)
        assert engine.prefect.state_of(run_id) == "CANCELLED"
        assert spawner.live() == []


async def test_cancelled_while_starting_and_taken_up_by_a_successor(tmp_path: Path) -> None:
    """The old daemon had asked for the start and was told to cancel; then it died before it heard the answer."""
    spawner, prefect = FakeSpawner(), FakePrefect(major=3)
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        run_id = await start(engine)
        record = next(record for record in engine.changes[::-1] if record.phase is Phase.STARTING)
    journal = Journal(path=str(tmp_path / "journal.db"), now=lambda: record.created_at, log=log_to(LogLines()))
    journal.save(replace(record, intent=Intent.CANCEL), "cancel asked")
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner, journal=journal) as (engine, _):
        engine.supervisor.adopt(engine.journal.unfinished())
        await engine.until_done(run_id)
        assert spawner.live() == [], "its process lives, and the API was told that it does not"
        assert [stop.reason for stop in spawner.stops] == ["cancel"]
        assert engine.prefect.state_of(run_id) == "CANCELLED"
        assert spawner.records == {}


async def test_started_by_a_predecessor_and_not_configured_any_more(tmp_path: Path) -> None:
    spawner, prefect = FakeSpawner(), FakePrefect(major=3)
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        run_id = await start(engine)
        record = next(record for record in engine.changes[::-1] if record.phase is Phase.STARTING)
    journal = Journal(path=str(tmp_path / "journal.db"), now=lambda: record.created_at, log=log_to(LogLines()))
    journal.save(record, "as it was when the daemon died")
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner, journal=journal) as (engine, _):
        engine.supervisor.adopt(engine.journal.unfinished())
        await engine.until(lambda: running(engine, run_id))
        prefect.set_state(run_id, "COMPLETED")
        spawner.exit(run_id)
        assert (await engine.until_done(run_id)).api_state is StateType.COMPLETED


# --- what was unclear to the API --------------------------------------------------------------------------------


async def test_a_run_that_moved_on_is_read_and_decided_anew(tmp_path: Path) -> None:
    """Between the reading and the telling a user cancels: the crash is refused, and CANCELLED is told."""
    prefect = FakePrefect(major=3)
    api = Interfering(fake_api(prefect), prefect, [("CANCELLING", None)])
    async with fake_engine(tmp_path, prefect=prefect, run_api=api) as (engine, spawner):
        run_id = await start(engine)
        spawner.exit(run_id, code=1)
        record = await engine.until_done(run_id)
        assert record.api_state is StateType.CANCELLED
        assert prefect.history[run_id] == ["Scheduled", "Pending", "Running", "Cancelling", "Cancelled"]


async def test_a_lost_answer_to_a_report_is_not_told_twice(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, _):
        run_id = await start(engine)
        engine.prefect.trouble("set_state", after=True, times=3)  # the first is of the cancel's announcement
        engine.supervisor.cancel([run_id])
        await engine.until_done(run_id)
        assert engine.prefect.history[run_id] == ["Scheduled", "Pending", "Running", "Cancelling", "Cancelled"]


@pytest.mark.parametrize("status", [409, 422])
async def test_an_api_that_calls_the_verdict_wrong_is_told_until_it_takes_it(tmp_path: Path, status: int) -> None:
    """As a proxy does for a while: nothing is lost by it, and it is said once."""
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = await start(engine)
        engine.prefect.trouble("set_state", status=status, times=100_000)
        spawner.exit(run_id, code=1)
        await asyncio.sleep(7200.0)
        assert engine.phase(run_id) == "reporting"
        asked = engine.prefect.asked.count(f"POST /flow_runs/{run_id}/set_state")
        assert 20 < asked < 60, "later each time, up to five minutes"
        engine.prefect.troubles.clear()
        assert (await engine.until_done(run_id)).api_state is StateType.CRASHED
        assert len(engine.lines.events("error")) == 1


async def test_a_cancel_while_it_is_claimed_is_not_lost_with_the_claim(tmp_path: Path) -> None:
    """The claim is refused, and the run would be on offer again: whoever asked for its end here was told yes."""
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = engine.add_run(engine.deploy())
        engine.prefect.trouble("set_state", status=409, times=3)
        engine.offer(run_id)
        engine.supervisor.cancel([run_id])
        await engine.supervisor.emptied.wait()
        assert engine.prefect.state_of(run_id) == "CANCELLED"
        assert spawner.started == []


async def test_a_run_that_was_deleted_is_forgotten(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = await start(engine)
        del engine.prefect.runs[run_id]
        spawner.exit(run_id, code=1)
        record = await engine.until_done(run_id)
        assert (record.api_state, record.words) == (None, "exited 1")


async def test_deleted_between_reading_and_telling(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = await start(engine)
        found = engine.prefect.runs[run_id]
        gone = {"exception_message": f"Flow run with id {run_id} not found"}
        engine.prefect.trouble("set_state", status=404, body=gone)
        spawner.exit(run_id, code=1)
        assert (await engine.until_done(run_id)).api_state is None
        assert found["state"]["type"] == "RUNNING"
