"""Real flows of real Prefects, started cold and warm: both complete with logs, and see the same, aspect by aspect."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runnerd.core.place import Place
from runnerd.core.prefect import StateType
from runnerd.core.process import LaunchSpec
from runnerd.core.settings import Deployment, RunSettings
from runnerd.launch.spec import PROGRAM, program_argv, program_text
from runnerd.processes.protocol import Record
from runnerd.spawner.warm.fixed_at_start import fixed_at_start
from tests.kits.prefect_servers import PrefectServer
from tests.kits.spawner import Link, SpawnerUnderTest
from tests.kits.warm import FORK_OF, run_to_end, start_warm, warm_spec
from tests.kits.warm_compare import DIFFERENT, NOT_IMPORTED_WARM, SAME, seen_by
from tests.server.test_engine_start import claimed_run, final_state

pytestmark = pytest.mark.server
FACTS = Path(__file__).parents[1] / "process" / "warm_facts.py"
KEYS = ("run-cold", "run-warm", "run-also-warm")
FLOW = """
import os, sys, time, uuid
import warm_facts
warm_facts.write(os.environ["FACTS"])
from prefect import flow, get_run_logger, task

@task
def double(number): return 2 * number

@flow(log_prints=True)
def where(told: str):
    print("printed by the flow")
    get_run_logger().info("logged by the flow")
    with open(told, "a") as file: file.write(f"{double(21)} {os.getpid()}\\n")
    sleep = getattr(sys.modules.get("prefect.flow_engine"), "time", time).sleep
    with open(f"{told}-sleep", "a") as file: file.write(sleep.__module__)
"""

Seen = dict[str, dict[str, Any]]


class Runs:
    """The runs of one major: their records, final states, outputs and what they saw."""

    def __init__(self, server: PrefectServer, home: Path) -> None:
        self.server = server
        self.records: dict[str, Record] = {}
        self.states: dict[str, StateType] = {}
        self.outputs: dict[str, str] = {}
        self.sleeps: dict[str, str] = {}
        self.told: dict[str, str] = {}
        self.seen: Seen = {}
        self._home = home
        self._code = home / "code"
        self._code.mkdir()
        (self._code / "where.py").write_text(FLOW)
        shutil.copy(FACTS, self._code)

    async def run_all(self, spawner: SpawnerUnderTest) -> None:
        common = {"PATH": "/usr/bin:/bin", **fixed_at_start(self._environment())}
        async with spawner.link() as link:
            warm = await start_warm(link, warm_spec(spawner, python=self.server.python, environment=common))
            assert warm.warm is not None and warm.warm.prefect == self.server.version
            for key in KEYS:
                await self._run(spawner, link, key)

    def _environment(self) -> dict[str, str]:
        return {**self.server.environment, "PYTHONDONTWRITEBYTECODE": "1", "PREFECT_LOGGING_LEVEL": "DEBUG"}

    async def _run(self, spawner: SpawnerUnderTest, link: Link, key: str) -> None:
        told = self._home / f"{key}.told"
        wanted = Deployment(
            name=f"d-{uuid.uuid4().hex[:8]}",
            entrypoint=f"{self._code}/where.py:where",
            parameters={"told": str(told)},
            run=RunSettings(python=self.server.python, working_directory=str(self._code)),
            place=Place("a.yaml"),
        )
        run_id = await claimed_run(self.server, wanted)
        self.records[key] = await run_to_end(link, self._spec(spawner, key, run_id, wanted))
        self.states[key] = await final_state(self.server, run_id)
        self.outputs[key] = spawner.output(key)
        self.told[key] = told.read_text()
        self.sleeps[key] = Path(f"{told}-sleep").read_text()
        self.seen[key] = json.loads((self._home / f"{key}.json").read_text())

    def _spec(self, spawner: SpawnerUnderTest, key: str, run_id: str, wanted: Deployment) -> LaunchSpec:
        """As runnerd.launch.spec makes it."""
        environment = {
            **self._environment(),
            "PREFECT__FLOW_RUN_ID": run_id,
            "PREFECT__FLOW_ENTRYPOINT": wanted.entrypoint,
            "RUNNERD_RUN_ID": key,
            "FACTS": str(self._home / f"{key}.json"),
        }
        argv = program_argv(self.server.python, "prefect.engine")
        environment[PROGRAM] = program_text("run_engine")
        return spawner.spec(
            key,
            *argv,
            environment=environment,
            working_directory=str(self._code),
            intents=True,
            fork_of=None if key == KEYS[0] else FORK_OF,
        )


@pytest.fixture(scope="module", params=["prefect2", "prefect3"])
def runs(request: pytest.FixtureRequest) -> Iterator[Runs]:
    home = Path(tempfile.mkdtemp(prefix="warm-real-"))
    home.chmod(0o755)
    spawner = SpawnerUnderTest(home)
    spawner.start()
    try:
        found = Runs(request.getfixturevalue(request.param), home)
        asyncio.run(found.run_all(spawner))
        yield found
    finally:
        spawner.clear()
        shutil.rmtree(home)


def test_a_real_flow_completes_warm(runs: Runs) -> None:
    assert [runs.records[key].start for key in KEYS] == ["cold", "warm", "warm"], runs.records
    assert set(runs.states.values()) == {StateType.COMPLETED}, runs.outputs
    for key in KEYS:
        record = runs.records[key]
        assert record.exit is not None and record.exit.code == 0
        assert record.identity is not None and runs.told[key] == f"42 {record.identity.pid}\n"
        assert "printed by the flow" in runs.outputs[key] and "logged by the flow" in runs.outputs[key]


@pytest.mark.parametrize("aspect", SAME)
def test_a_real_flow_sees_the_same(runs: Runs, aspect: str) -> None:
    cold, warm, again = (seen_by(runs.seen[key], aspect, key) for key in KEYS)
    assert warm == cold
    assert again == cold


@pytest.mark.parametrize("aspect", DIFFERENT)
def test_each_real_flow_has_its_own(runs: Runs, aspect: str) -> None:
    assert len({str(runs.seen[key][aspect]) for key in KEYS}) == 3


def test_real_settings_and_logging_were_compared(runs: Runs) -> None:
    """Or the comparison would be of nothing: the interpreter was started without these variables."""
    cold = runs.seen[KEYS[0]]
    assert cold["settings"]["PREFECT_API_URL"] == runs.server.url
    assert cold["settings"]["PREFECT_LOGGING_LEVEL"] == "DEBUG"
    assert cold["logging"]["prefect.flow_runs"]


def test_a_warm_flow_finds_its_modules_loaded(runs: Runs) -> None:
    cold, warm = (set(runs.seen[key]["modules"]) for key in KEYS[:2])
    assert cold - warm <= NOT_IMPORTED_WARM


def test_the_thread_of_heartbeats_is_woken_when_the_flow_ends(runs: Runs) -> None:
    """Prefect 3 has one; its engine calls the sleep of run_engine.py in place of time.sleep."""
    assert runs.sleeps == dict.fromkeys(KEYS, "time" if runs.server.major == 2 else "__main__")
