"""upkeep.py and refresher.py: what a new daemon takes over, what is forgotten, and what people see of the API."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from runnerd import __version__
from runnerd.core.errors import JournalError
from runnerd.core.machine import Phase
from runnerd.core.prefect import StateType
from runnerd.core.process import LaunchSpec
from runnerd.core.settings import JournalSettings
from runnerd.core.wakes import Wakes
from runnerd.deployments.refresher import REFRESH_EVERY_S, Refresher
from runnerd.deployments.registrar import Registrar
from runnerd.deployments.registry import EntryState
from runnerd.journal.journal import Journal
from runnerd.journal.pruning import prune_history, recover_journal
from runnerd.launch.scratch import TIDY_PREFIX
from runnerd.launch.spec import HOOKS_PREFIX
from runnerd.processes.helper import KEY_PREFIX
from runnerd.processes.upgrading import keep_spawner_new
from runnerd.runs.adopting import adopt
from tests.kits.engine import Engine, NotedEvent, fake_engine, start
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.fakes.fake_spawner import FakeSpawner
from tests.kits.nouns import NOON, URL, LogLines, a_record, copied, log_to
from tests.kits.registrar import FakeInspector


async def adopted(engine: Engine) -> None:
    await adopt(journal=engine.journal, link=engine.link, supervisor=engine.supervisor, log=engine.ambient.log)


def spec(key: str, attempt: int = 1) -> LaunchSpec:
    return LaunchSpec(
        key=key, attempt=attempt, argv=("true",), environment={}, working_directory="/", output=f"/o/{key}"
    )


# --- adopting -----------------------------------------------------------------------------------------------------


async def test_every_run_of_the_last_daemon_is_taken_up_in_its_phase(tmp_path: Path) -> None:
    spawner, prefect = FakeSpawner(), FakePrefect(major=3)
    spawner.stubborn = True
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        runs = {name: await start(engine, engine.deploy(name)) for name in ("running", "stopping", "ended")}
        engine.supervisor.cancel([runs["stopping"]])
        await engine.until(lambda: engine.phase(runs["stopping"]) == "stopping")
        prefect.down = True
        spawner.exit(runs["ended"], code=1)
        await engine.until(lambda: engine.phase(runs["ended"]) == "reporting")
        claiming = engine.add_run(engine.deploy("claiming"))
        engine.offer(claiming)
    prefect.down = False
    prefect.set_state(claiming, "PENDING")
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        await adopted(engine)
        assert (await engine.until_done(runs["ended"])).words == "exited 1"
        assert (await engine.until_done(runs["stopping"])).words == "cancelled; killed by SIGKILL"
        await engine.until(lambda: engine.supervisor.run(claiming) is None)
        assert engine.phase(runs["running"]) == "running"
        assert engine.lines.events("info")[:4] == ["adopted"] * 4
        assert [prefect.state_of(run_id) for run_id in runs.values()] == ["RUNNING", "CANCELLED", "CRASHED"]


async def test_a_run_only_the_spawner_knows_of(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = engine.add_run(engine.deploy())
        engine.prefect.set_state(run_id, "PENDING")
        engine.prefect.set_state(run_id, "RUNNING")
        await engine.link.spawn(spec(run_id, attempt=3))
        await adopted(engine)
        assert [record.id for record in engine.supervisor.records()] == [run_id]
        engine.supervisor.cancel([run_id])
        record = await engine.until_done(run_id)
        assert (record.attempt, record.deployment, record.api_state) == (3, "?", StateType.CANCELLED)
        assert spawner.records == {}


async def test_a_run_that_was_told_and_not_yet_forgotten(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        run_id = str(uuid.uuid4())
        await engine.link.spawn(spec(run_id))
        spawner.exit(run_id)
        engine.journal.save(a_record(run_id, phase=Phase.DONE), "told")
        await adopted(engine)
        assert (spawner.records, engine.supervisor.records()) == ({}, [])


async def test_inspections_that_nobody_waits_for_are_cleared(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        for key in ("old", "new"):
            await engine.link.spawn(spec(KEY_PREFIX + key))
        spawner.exit(KEY_PREFIX + "old")
        await asyncio.sleep(0)
        await adopted(engine)
        await asyncio.sleep(1)
        assert spawner.live() == []
        assert [(stop.key, stop.timeout_s) for stop in spawner.stops] == [(KEY_PREFIX + "new", 0.0)]
        assert engine.supervisor.records() == []


@pytest.mark.parametrize("prefix", [HOOKS_PREFIX, TIDY_PREFIX])
async def test_what_follows_a_run_is_forgotten_once_it_has_ended(tmp_path: Path, prefix: str) -> None:
    """Where the run is still ours it has yet to hear how that went."""
    async with fake_engine(tmp_path) as (engine, spawner):
        ours = await start(engine)
        ended, under_way, of_ours = (prefix + key for key in (str(uuid.uuid4()), str(uuid.uuid4()), ours))
        for key in (ended, under_way, of_ours):
            await engine.link.spawn(spec(key))
        spawner.exit(ended)
        spawner.exit(of_ours)
        await asyncio.sleep(0)
        await adopted(engine)
        assert {key for key, _ in spawner.records} == {ours, under_way, of_ours}
        assert spawner.live() == [ours, under_way]


@pytest.mark.parametrize("key", ["server", "not-a-run"])
async def test_helpers_are_left_alone(tmp_path: Path, key: str) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        await engine.link.spawn(spec(key))
        await adopted(engine)
        assert (spawner.live(), engine.supervisor.records()) == ([key], [])


# --- forgetting ---------------------------------------------------------------------------------------------------


async def test_old_runs_go_with_the_output_of_every_attempt(tmp_path: Path) -> None:
    journal = Journal(path=str(tmp_path / "journal.db"), now=lambda: NOON)
    outputs = [tmp_path / f"old.{attempt}.log" for attempt in (1, 2, 3)]
    kept = tmp_path / "new.1.log"
    for path in (outputs[0], outputs[2], kept):
        path.touch()
    old = a_record("old", phase=Phase.DONE, attempt=3, output=str(outputs[2]), created_at=NOON - timedelta(days=40))
    journal.save(old, "told")
    journal.save(replace(old, id="silent", output=None), "told")
    journal.save(a_record("new", phase=Phase.DONE, output=str(kept)), "told")
    await prune_history(journal=journal, settings=JournalSettings(), now=NOON, log=log_to(LogLines()))
    assert [record.id for record in journal.history()] == ["new"]
    assert sorted(path.name for path in tmp_path.glob("*.log")) == ["new.1.log"]
    journal.close()


async def test_many_runs_are_forgotten_in_slices(tmp_path: Path) -> None:
    """Forgetting ten thousand runs keeps nobody waiting: everybody has a turn in between."""
    journal = CountingJournal(path=str(tmp_path / "journal.db"), now=lambda: NOON)
    for number in range(450):
        journal.save(a_record(str(number), phase=Phase.DONE, created_at=NOON - timedelta(days=40)), "told")
    counting = asyncio.create_task(journal.count_turns())
    await prune_history(journal=journal, settings=JournalSettings(), now=NOON, log=log_to(LogLines()))
    counting.cancel()
    assert journal.history() == []
    assert len(set(journal.forgetting)) == 5
    journal.close()


class CountingJournal(Journal):
    """Notes at which of the loop's turns it forgets."""

    turns = 0
    forgetting: tuple[int, ...] = ()

    async def count_turns(self) -> None:
        while True:
            self.turns += 1
            await asyncio.sleep(0)

    def forget(self, run_ids: Iterable[str]) -> None:
        self.forgetting += (self.turns,)
        super().forget(run_ids)


async def test_output_that_cannot_be_removed_keeps_its_run_and_no_other(tmp_path: Path) -> None:
    journal, lines = Journal(path=str(tmp_path / "journal.db"), now=lambda: NOON), LogLines()
    stuck = tmp_path / "stuck.1.log"
    stuck.mkdir()
    for name in ("stuck", "free", "liberty"):
        output = tmp_path / f"{name}.1.log"
        journal.save(a_record(name, phase=Phase.DONE, output=str(output), created_at=NOON - timedelta(days=40)), "told")
    await prune_history(journal=journal, settings=JournalSettings(), now=NOON, log=log_to(lines))
    assert [record.id for record in journal.history()] == ["stuck"]
    (line,) = lines.all()
    assert (line["event"], line["runs"]) == ("cannot remove the output of old runs", 1)
    assert str(stuck) in line["why"]
    stuck.rmdir()
    await prune_history(journal=journal, settings=JournalSettings(), now=NOON, log=log_to(lines))
    assert journal.history() == []
    journal.close()


async def test_a_journal_that_cannot_forget_ends_no_loop(tmp_path: Path) -> None:
    journal, lines = Journal(path=str(tmp_path / "journal.db"), now=lambda: NOON), LogLines()
    journal.save(a_record("old", phase=Phase.DONE, created_at=NOON - timedelta(days=40)), "told")
    journal.close()
    await prune_history(journal=journal, settings=JournalSettings(), now=NOON, log=log_to(lines))
    assert lines.events("warning") == ["cannot delete old runs from the journal"]


async def test_the_journal_heals_by_itself(tmp_path: Path) -> None:
    journal = HealingJournal(path=str(tmp_path / "journal.db"), now=lambda: NOON)
    healed: list[int] = []
    wakes = Wakes(offer=NotedEvent(lambda: healed.append(journal.tries)))
    keeping = asyncio.create_task(recover_journal(journal=journal, wakes=wakes))
    await asyncio.sleep(60)
    assert journal.tries == 0, "nothing is written while nothing is wrong"
    journal.problem = "the disk is full"
    await asyncio.sleep(600)
    assert (journal.tries, healed, journal.problem) == (3, [3], None)
    keeping.cancel()
    await asyncio.wait([keeping])
    journal.close()


class HealingJournal(Journal):
    """On a disk that has room again at the third try."""

    tries = 0

    def try_writing(self) -> None:
        self.tries += 1
        if self.tries < 3:
            raise JournalError("the disk is full")
        super().try_writing()


# --- what people see ----------------------------------------------------------------------------------------------


@asynccontextmanager
async def refreshed(folder: Path) -> AsyncIterator[tuple[Engine, Refresher]]:
    async with fake_engine(folder) as (engine, _):
        registrar = Registrar(
            api=engine.api,
            inspector=FakeInspector(),  # type: ignore[arg-type]
            journal=engine.journal,
            registry=engine.registry,
            url=URL,
            ambient=engine.ambient,
            wakes=engine.wakes,
            problems=engine.problems,
        )
        refresher = Refresher(
            api=engine.api,
            registry=engine.registry,
            registrar=registrar,
            feed=engine.feed,
            wakes=engine.wakes,
            ambient=engine.ambient,
        )
        yield engine, refresher


async def test_the_next_start_and_pauses_of_each(tmp_path: Path) -> None:
    async with refreshed(tmp_path) as (engine, refresher):
        busy, calm, idle = (engine.deploy(name) for name in ("busy", "calm", "idle"))
        for number in range(250):
            engine.add_run(busy, in_s=60.0 + number)
        engine.add_run(calm, in_s=86400.0)
        engine.prefect.deployments[idle]["paused"] = True
        await refresher.refresh()
        now = engine.now()
        found = {one.deployment.name: one for one in engine.registry.entries()}
        assert found["busy"].next_run_at == now + timedelta(seconds=60)
        assert found["calm"].next_run_at == now + timedelta(days=1), "a busy one must not hide it"
        assert (found["idle"].next_run_at, found["idle"].state) == (None, EntryState.PAUSED)


async def test_without_deployments_nothing_is_asked(tmp_path: Path) -> None:
    async with refreshed(tmp_path) as (engine, refresher):
        await refresher.refresh()
        assert copied(engine.prefect) == []


@pytest.mark.parametrize("woken_every_s", [None, 1])
async def test_it_costs_a_few_requests_a_minute_however_often_it_is_woken(
    tmp_path: Path, woken_every_s: int | None
) -> None:
    async with refreshed(tmp_path) as (engine, refresher):
        engine.deploy()
        keeping = asyncio.create_task(refresher.run())
        for _ in range(600):
            await asyncio.sleep(1)
            if woken_every_s:
                engine.wakes.refresh.set()
            assert engine.pulse.stuck() == ()
        rounds = copied(engine.prefect).count("POST /deployments/filter")
        assert rounds == pytest.approx(600 / (10 if woken_every_s else REFRESH_EVERY_S), abs=1)
        keeping.cancel()
        await asyncio.wait([keeping])


@pytest.mark.parametrize("status", [503, 401, 422])
async def test_what_cannot_be_asked_is_asked_later(tmp_path: Path, status: int) -> None:
    async with refreshed(tmp_path) as (engine, refresher):
        engine.add_run(engine.deploy(), in_s=3600.0)
        engine.prefect.trouble("", status=status, times=20)
        keeping = asyncio.create_task(refresher.run())
        await asyncio.sleep(100 * REFRESH_EVERY_S)
        assert not keeping.done()
        (entry,) = engine.registry.entries()
        assert entry.next_run_at is not None
        keeping.cancel()
        await asyncio.wait([keeping])


# --- the spawner of another version -------------------------------------------------------------------------------


@pytest.mark.parametrize(("successor", "versions"), [(__version__, [__version__]), ("0.0.1", ["0.0.1"])])
async def test_a_spawner_of_another_version_makes_room_once_it_is_idle(
    tmp_path: Path, successor: str, versions: list[str]
) -> None:
    """And only once: what comes back as it was is what is installed there."""
    spawner, prefect = FakeSpawner(), FakePrefect(major=3)
    new = replace(spawner.hello, version=successor)
    spawner.hello, spawner.successor = replace(spawner.hello, version="0.0.1"), new
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        run_id = await start(engine, engine.deploy("nightly"))
        keeping = asyncio.create_task(keep_spawner_new(link=engine.link, log=engine.ambient.log))
        await asyncio.sleep(100)
        assert spawner.retired == 0
        spawner.exit(run_id, code=0)
        await engine.until(lambda: engine.phase(run_id) != "running")
        await asyncio.sleep(100)
        assert spawner.retired == 1
        assert engine.link.hello is not None and [engine.link.hello.version] == versions
        keeping.cancel()
