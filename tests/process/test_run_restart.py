"""Runs over the lives of daemons and spawners: each is executed once and ends in the right state."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from typing import IO

import psutil
import pytest

from runnerd.core.machine import Phase
from runnerd.journal.journal import Journal
from tests.kits.checkout import ROOT
from tests.kits.engine import Engine, running
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.nouns import LogLines, log_to
from tests.kits.run_life import Stage, begin, now, ran
from tests.kits.spawner import SpawnerUnderTest


@pytest.fixture
def stage(spawner: SpawnerUnderTest) -> Iterator[Stage]:
    prefect = FakePrefect(major=3)
    with prefect.serve() as url:
        yield Stage(spawner, prefect, url)


# --- handing over ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", ["while nobody looks", "after it was adopted"])
async def test_detached_and_adopted(stage: Stage, ends: str) -> None:
    ids: list[str] = []
    async with stage.engine() as engine:
        ids.append(begin(engine, "hold"))
        await stage.until_running(engine, ids[0])
    if ends == "while nobody looks":
        stage.go()
    async with stage.engine() as engine:
        (record,) = engine.journal.unfinished()
        assert (record.id, record.phase) == (ids[0], Phase.RUNNING)
        engine.supervisor.adopt([record])
        if ends == "after it was adopted":
            stage.go()
        done = await engine.until_done(ids[0])
        assert (done.words, done.identity, done.attempt) == ("exited 0", record.identity, 1)
        assert stage.prefect.state_of(ids[0]) == "COMPLETED"
    assert ran(stage.spawner) == ids


# --- started again ------------------------------------------------------------------------------------------------


async def test_pending_and_nobody_saw_the_exit_is_started_again_once(stage: Stage) -> None:
    """The spawner is killed, and while nobody looks the process as well."""
    async with stage.engine() as engine:
        run_id = begin(engine, "silent")
        for attempt in (1, 2):
            started = stage.spawner.home / "started.txt"
            await engine.until(lambda at=attempt, file=started: file.exists() and len(file.read_text().split()) == at)
            await engine.until(lambda: running(engine, run_id))
            stage.spawner.end(9)
            kill_flow(engine, run_id)
            stage.spawner.start()
        record = await engine.until_done(run_id)
        assert (record.attempt, record.respawned, record.words) == (2, True, "ended, exit status unknown")
        assert stage.prefect.history[run_id] == ["Scheduled", "Pending", "Crashed"]
        assert await engine.link._ask(lambda client: client.list()) == []


def kill_flow(engine: Engine, run_id: str) -> None:
    run = engine.supervisor.run(run_id)
    assert run is not None
    assert run.record.identity is not None
    process = psutil.Process(run.record.identity.pid)
    process.kill()
    psutil.wait_procs([process], timeout=60)


# --- killed at every write ----------------------------------------------------------------------------------------


class Daemons:
    """Lives of a daemon, one after the other."""

    def __init__(self, stage: Stage, process: subprocess.Popen[str]) -> None:
        self._stage = stage
        self._process = process

    def live(self, *, kill_at: int = 0, before: bool = False) -> int:
        """How that life ended: 0 when all runs are done, -9 when it was killed."""
        spawner = self._stage.spawner
        asked = {"url": self._stage.url, "socket": spawner.socket, "home": str(spawner.home)}
        stdin, stdout = pipes(self._process)
        stdin.write(json.dumps({**asked, "kill_at": kill_at, "before": before}) + "\n")
        stdin.flush()
        return int(stdout.readline())


def pipes(process: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout


@pytest.fixture
def daemons(stage: Stage) -> Iterator[Daemons]:
    command = [sys.executable, "-m", "tests.process.tiny_daemon"]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        yield Daemons(stage, process)
        pipes(process)[0].close()
        process.wait(60)


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize(
    ("mode", "history", "intent", "writes"),
    [
        ("complete", ["Running", "Completed"], None, 6),
        ("exit 3", ["Running", "Crashed"], None, 7),
        ("cancelling", ["Running", "Cancelling", "Cancelled"], "cancel", 9),
    ],
)
def test_killed_at_each_write_of_its_journal(
    stage: Stage, daemons: Daemons, mode: str, history: list[str], intent: str | None, writes: int, before: bool
) -> None:
    number = 0
    while True:
        number += 1
        run_id = new_run(stage, mode)
        ended = daemons.live(kill_at=number, before=before)
        if ended == -9:
            assert daemons.live() == 0
        assert stage.prefect.history[run_id] == ["Scheduled", "Pending", *history], f"killed at write {number}"
        assert ran(stage.spawner).count(run_id) == 1
        journal = Journal(path=str(stage.spawner.home / "journal.db"), now=now, log=log_to(LogLines()))
        assert journal.unfinished() == []
        record = journal.run(run_id)
        assert record is not None
        assert (record.attempt, record.intent) == (1, intent)
        journal.close()
        if ended != -9:
            break
    assert ended == 0
    assert number == writes + 1, "the one that was not reached"
    assert list(stage.spawner.records.glob("*.json")) == [], "of no run the spawner keeps a record"


def new_run(stage: Stage, mode: str) -> str:
    """A scheduled run of the only deployment; its id."""
    if not stage.prefect.deployments:
        flow_id, deployment_id = str(uuid.uuid4()), str(uuid.uuid4())
        stage.prefect.flows[flow_id] = {"id": flow_id, "name": "etl", "tags": []}
        stage.prefect.deployments[deployment_id] = {"id": deployment_id, "name": "d", "flow_id": flow_id}
        (stage.spawner.home / "deployments.json").write_text(json.dumps({deployment_id: mode}))
    (deployment_id,) = stage.prefect.deployments
    return stage.prefect.add_run(deployment_id)
