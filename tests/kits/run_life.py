"""An engine on a real spawner and a served FakePrefect, whose flows are flow_child.py."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from runnerd.core.errors import SpawnerError
from runnerd.core.machine import RunRecord
from runnerd.core.problems import Problems
from runnerd.core.process import LaunchSpec
from runnerd.core.settings import Deployment
from runnerd.deployments.registry import Registry
from runnerd.journal.journal import Journal
from runnerd.launch.prepared import Launcher, Prepared
from runnerd.prefect_api.client import PrefectApi
from runnerd.prefect_api.credentials import Credentials
from runnerd.processes.client import SpawnerClient
from runnerd.processes.link import SpawnerLink
from runnerd.processes.protocol import Record
from runnerd.runs.claiming import FlowRunApi
from tests.kits.checkout import ROOT
from tests.kits.engine import Engine, running, serving
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.nouns import Json, LogLines, log_to, settings
from tests.kits.spawner import SpawnerUnderTest

FLOW = ROOT / "tests" / "process" / "flow_child.py"


@dataclass
class FlowLauncher:
    """The deployment's entrypoint is a mode of flow_child.py with its arguments."""

    registry: Registry
    url: str
    home: Path

    async def prepare(self, record: RunRecord) -> Prepared:
        entry = self.registry.by_id(record.deployment_id)
        if entry is None:
            return Prepared(start="its deployment is not configured on this host any more")
        prepared = Prepared(start=self._spec(record, entry.deployment), user="root")
        return prepared.with_commands(entry.deployment.run)

    async def prepare_hooks(self, record: RunRecord) -> LaunchSpec | str:
        entry = self.registry.by_id(record.deployment_id)
        return self._spec(record, entry.deployment) if record.after and entry else f"run {record.id} has none"

    def _spec(self, record: RunRecord, deployment: Deployment) -> LaunchSpec:
        run = deployment.run
        return LaunchSpec(
            key=record.id,
            attempt=record.attempt,
            argv=(run.python, "-I", "-S", str(FLOW), *deployment.entrypoint.split()),
            environment={"PREFECT_API_URL": self.url, "PREFECT__FLOW_RUN_ID": record.id, "PATH": "/usr/bin:/bin"},
            working_directory=str(self.home),
            output=str(self.home / f"{record.id}.{record.attempt}.log"),
            own=True,
            runtime_max_s=run.runtime_max_s,
            stop_timeout_s=run.stop_timeout_s,
        )


def life_engine(
    *,
    prefect: FakePrefect,
    url: str,
    socket: str,
    home: Path,
    journal: Journal,
    run_api: Callable[[PrefectApi], FlowRunApi] | None = None,
    **changes: Json,
) -> Engine:
    """Not yet serving. `changes` are of the settings."""
    lines, problems = LogLines(), Problems()

    def connect(on_record: Callable[[Record], None], on_lost: Callable[[], None]) -> SpawnerClient:
        return SpawnerClient(socket_path=socket, on_record=on_record, on_lost=on_lost)

    async def start() -> None:
        raise SpawnerError("there is none, and the test will start one")

    def launcher(registry: Registry) -> Launcher:
        return FlowLauncher(registry, url, home)

    api = PrefectApi(url=url, credentials=Credentials, headers={}, timeout_s=60, now=now)
    return Engine(
        prefect=prefect,
        journal=journal,
        link=SpawnerLink(make_client=connect, start_spawner=start, problems=problems, log=log_to(lines)),
        api=api,
        launcher=launcher,
        settings=settings(**changes),
        lines=lines,
        now=now,
        clock=time.monotonic,
        problems=problems,
        run_api=run_api(api) if run_api is not None else None,
    )


def now() -> datetime:
    return datetime.now(UTC)


@asynccontextmanager
async def living(
    spawner: SpawnerUnderTest, prefect: FakePrefect, url: str, *, journal: str = "journal.db", **changes: Json
) -> AsyncIterator[Engine]:
    """An engine on this spawner; its journal stays when it is left."""
    made = Journal(path=str(spawner.home / journal), now=now, log=log_to(LogLines()))
    engine = life_engine(prefect=prefect, url=url, socket=spawner.socket, home=spawner.home, journal=made, **changes)
    async with serving(engine):
        yield engine


def ran(spawner: SpawnerUnderTest) -> list[str]:
    """The id of each run whose body has begun, as often as it has."""
    path = spawner.home / "ran.txt"
    return path.read_text().split() if path.exists() else []


def begin(engine: Engine, mode: str, **run: Json) -> str:
    """A claimed run of a deployment with this entrypoint; its id."""
    deployment_id = engine.deploy(f"{mode}-{len(engine.prefect.deployments)}", entrypoint=mode, run=run)
    run_id = engine.add_run(deployment_id)
    assert engine.offer(run_id) == (run_id,)
    return run_id


class Stage:
    """A spawner and a server, and what an engine does there."""

    def __init__(self, spawner: SpawnerUnderTest, prefect: FakePrefect, url: str) -> None:
        self.spawner, self.prefect, self.url = spawner, prefect, url

    def engine(self, **changes: Json) -> AbstractAsyncContextManager[Engine]:
        return living(self.spawner, self.prefect, self.url, **changes)

    async def until_running(self, engine: Engine, run_id: str) -> None:
        """Its body has begun."""
        await engine.until(lambda: running(engine, run_id) and run_id in ran(self.spawner))

    def go(self) -> None:
        (self.spawner.home / "go").touch()
