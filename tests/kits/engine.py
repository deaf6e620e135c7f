"""An Engine of real parts, and what it takes to put it around a FakePrefect and a FakeSpawner."""

from __future__ import annotations

import asyncio
import os
import random
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path

from runnerd.config.in_force import ConfigInForce
from runnerd.core.backoff import Backoff
from runnerd.core.machine import Hook, RunRecord
from runnerd.core.pace import Pace
from runnerd.core.problems import Problems
from runnerd.core.record_feed import RecordFeed
from runnerd.core.settings import Config, Deployment, Settings, key_of
from runnerd.core.wakes import Wakes
from runnerd.deployments.registry import Entry, Registry
from runnerd.files.bounded_calls import BoundedCalls
from runnerd.journal.journal import Journal
from runnerd.launch.prepared import Launcher
from runnerd.log.api_health_log import ApiHealthLog
from runnerd.polling.build import build_polling
from runnerd.pools.changes import PoolChanges
from runnerd.pools.offers import PoolOffers
from runnerd.pools.table import PoolTable
from runnerd.prefect_api.client import PrefectApi
from runnerd.prefect_api.event_socket import EventSocket
from runnerd.prefect_api.websocket import Refusal
from runnerd.processes.link import SpawnerLink
from runnerd.runs.claiming import FlowRunApi
from runnerd.runs.drain import Drain
from runnerd.runs.record_store import RunContext
from runnerd.runs.supervisor import Supervisor
from runnerd.system.ambient import Ambient, call_later
from runnerd.system.disk_room import DiskRoom
from runnerd.system.watchdog import Pulse
from tests.kits import journal
from tests.kits.engine_parts import SpecLauncher
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.fakes.fake_spawner import FakeSpawner
from tests.kits.jump_loop import START_S
from tests.kits.notices import notices_of
from tests.kits.nouns import URL, Json, LogLines, a_deployment, copied, fake_api, flow_run, log_to, settings

POLL = "POST /deployments/get_scheduled_flow_runs"
PROCESSORS = 2
BOUND = "POST /flow_runs/filter"  # the runs that only their process can go on with


def an_ambient(lines: LogLines, *, now: Callable[[], datetime], clock: Callable[[], float]) -> Ambient:
    """An ambient that logs to `lines` and retries after moments, the same ones each time."""
    return Ambient(
        log=log_to(lines),
        now=now,
        clock=clock,
        backoff=lambda: Backoff(first_s=0.1, cap_s=5.0, uniform=random.Random(1).random),
        pulse=Pulse(clock=clock),
    )


class Engine:
    """Supervisor, poller and drain with their real parts. `settings` may be replaced while it runs."""

    def __init__(
        self,
        *,
        prefect: FakePrefect,
        journal: Journal,
        link: SpawnerLink,
        api: PrefectApi,
        launcher: Callable[[Registry], Launcher],
        settings: Settings,
        lines: LogLines,
        now: Callable[[], datetime],
        clock: Callable[[], float],
        problems: Problems,
        run_api: FlowRunApi | None = None,
        pools: PoolTable | None = None,
    ) -> None:
        self.prefect, self.journal, self.link, self.api = prefect, journal, link, api
        self.config, self.lines, self.now, self.clock = ConfigInForce(Config(settings=settings)), lines, now, clock
        self.ambient = an_ambient(lines, now=now, clock=clock)
        self.pulse = self.ambient.pulse
        self.problems = problems
        self.wakes, self.feed = Wakes(), RecordFeed()
        self.tasks = asyncio.TaskGroup()
        self.registry = Registry()
        self.pools = pools or PoolTable()
        self.outdated: list[str] = []  # pools that were found to be another than known
        self.launcher = launcher(self.registry)
        self.disk = os.statvfs("/")  # what runs are recorded on
        self.room = DiskRoom(
            directories=("/",), calls=BoundedCalls(), log=self.ambient.log, statvfs=lambda _directory: self.disk
        )
        self.hooks: set[Hook] = set()  # what flows have
        self.may_have_hook = self._has_hook
        self.changes: list[RunRecord] = []
        self.notices = notices_of(self)
        self.context = RunContext(
            api=run_api or api,
            link=link,
            journal=journal,
            launcher=self.launcher,
            ambient=self.ambient,
            config=self.config,
            feed=self.feed,
            hooked=lambda record, hook: self.may_have_hook(record, hook),
            command_of=self.registry.command_of,
            room=self.room,
            notice_maker=self.notices.maker,
            notice_queue=self.notices.queue,
        )
        self.feed.subscribe(self.changes.append)
        self.supervisor = Supervisor(
            context=self.context,
            registry=self.registry,
            pool_caps=self.pools.caps,
            tasks=self.tasks,
            wakes=self.wakes,
        )
        self.pace, self.jitter = Pace(), 0.5  # the jitter: 0 to 1
        pools, outdated = self.pools, self.outdated.append
        offers = PoolOffers(api=api.pools, table=pools, config=self.config, pace=self.pace, now=now, outdated=outdated)
        parts = build_polling(
            api=api,
            supervisor=self.supervisor,
            registry=self.registry,
            journal=journal,
            pools=offers,
            config=self.config,
            wakes=self.wakes,
            ambient=self.ambient,
            problems=problems,
            pace=self.pace,
            subscribe=self._refuse_stream,
            changes=PoolChanges(table=pools, outdated=outdated, wakes=self.wakes),
            feed=self.feed,
            on_late=self.notices.late.note,
            processors=PROCESSORS,
            jitter=lambda: self.jitter,
        )
        self.poller, self.cancellations, self.events = parts.poller, parts.cancellations, parts.events
        self.abandoned, self.blocked = parts.abandoned, parts.blocked
        self.drain = Drain(supervisor=self.supervisor, wakes=self.wakes, now=now)
        self.look_s = 0.02

    @property
    def settings(self) -> Settings:
        return self.config.settings()

    @settings.setter
    def settings(self, settings: Settings) -> None:
        self.config.replace(Config(settings=settings))

    async def _refuse_stream(self) -> EventSocket | Refusal:
        return Refusal(status=404, why="HTTP 404")

    async def _has_hook(self, _record: RunRecord, hook: Hook) -> bool:
        return hook in self.hooks

    # --- for tests ----------------------------------------------------------------------------------------------

    def deploy(self, name: str = "nightly", *, run: Mapping[str, Json] | None = None, **changes: Json) -> str:
        """A deployment that the API and the registry have; its id."""
        return deploy(self.prefect, self.registry, a_deployment(name, run=run, **changes))

    def add_run(self, deployment_id: str, *, in_s: float = 0.0, **more: Json) -> str:
        """A run that falls due so many seconds from now; its id."""
        return self.prefect.add_run(deployment_id, due=self.now() + timedelta(seconds=in_s), **more)

    def offer(self, *run_ids: str) -> tuple[str, ...]:
        """Offer these runs to the supervisor; those claimed."""
        return self.supervisor.offer([flow_run(self.prefect, run_id) for run_id in run_ids]).claimed

    def phase(self, run_id: str) -> str | None:
        run = self.supervisor.run(run_id)
        return run.record.phase.value if run is not None else None

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until it holds; looked at after every change of a run, and now and then."""
        while not condition():
            try:
                async with asyncio.timeout(self.look_s):
                    await self.supervisor.wait_change()
            except TimeoutError:
                continue

    async def until_done(self, run_id: str) -> RunRecord:
        """Its record in the journal once it is done."""
        await self.until(lambda: self.supervisor.run(run_id) is None)
        record = self.journal.run(run_id)
        assert record is not None, "it was not done but withdrawn"
        return record


def running(engine: Engine, run_id: str) -> bool:
    return engine.phase(run_id) == "running"


async def start(engine: Engine, deployment_id: str | None = None, **more: Json) -> str:
    """A run that runs; its id."""
    run_id = engine.add_run(deployment_id or engine.deploy(), **more)
    assert engine.offer(run_id) == (run_id,)
    await engine.until(lambda: running(engine, run_id))
    engine.prefect.set_state(run_id, "RUNNING")
    return run_id


def resume(engine: Engine, known: Iterable[Entry]) -> None:
    """Go on as the next daemon of a host that has these deployments."""
    for entry in known:
        engine.registry.put(entry)
    engine.supervisor.adopt(engine.journal.unfinished())


def events(engine: Engine, run_id: str) -> list[str]:
    return journal.events(engine.journal, run_id)


def deploy(prefect: FakePrefect, registry: Registry, deployment: Deployment) -> str:
    flow_id, deployment_id = str(uuid.uuid4()), str(uuid.uuid4())
    prefect.flows[flow_id] = {"id": flow_id, "name": "etl", "tags": []}
    prefect.deployments[deployment_id] = {
        "id": deployment_id,
        "name": deployment.name,
        "flow_id": flow_id,
        "tags": list(deployment.tags),
        "paused": False,
        "schedules": [],
    }
    for entry in registry.find(f"etl/{deployment.name}"):
        registry.remove(key_of(entry.deployment))
    registry.put(Entry(deployment=deployment, flow="etl", deployment_id=deployment_id))
    return deployment_id


@asynccontextmanager
async def serving(engine: Engine) -> AsyncIterator[Engine]:
    """The engine with its spawner link up; runs are detached at the end, as a daemon that hands over does."""
    failure: Exception | None = None
    async with engine.tasks:
        linking = engine.tasks.create_task(engine.link.run())
        try:
            await engine.link.wait_until_connected()
            yield engine
        except Exception as error:  # a failed assertion reads better outside of a group
            failure = error
        finally:
            engine.supervisor.detach()
            linking.cancel()
    await engine.link.close()
    await engine.api.close()
    engine.journal.close()
    if failure is not None:
        raise failure


@asynccontextmanager
async def fake_engine(
    directory: Path,
    *,
    prefect: FakePrefect | None = None,
    spawner: FakeSpawner | None = None,
    run_api: FlowRunApi | None = None,
    journal: Journal | None = None,
    launcher: Callable[[Registry], Launcher] = SpecLauncher,
    pools: PoolTable | None = None,
    **changes: Json,
) -> AsyncIterator[tuple[Engine, FakeSpawner]]:
    """Around a FakePrefect and a FakeSpawner, by the clock of the running loop. `changes` are of the settings."""
    loop: Json = asyncio.get_running_loop()
    prefect, spawner = prefect or FakePrefect(major=3), spawner or FakeSpawner()
    lines, problems = LogLines(), Problems()
    health_log = ApiHealthLog(url=URL, log=log_to(lines), later=call_later)
    engine = Engine(
        prefect=prefect,
        journal=journal or Journal(path=str(directory / "journal.db"), now=loop.utcnow, log=log_to(LogLines())),
        link=SpawnerLink(
            make_client=spawner.make_client, start_spawner=spawner.start_spawner, problems=problems, log=log_to(lines)
        ),
        api=fake_api(prefect, now=loop.utcnow, on_left_out=health_log.note_left_out),
        launcher=launcher,
        settings=settings(**changes),
        lines=lines,
        now=loop.utcnow,
        clock=loop.time,
        problems=problems,
        run_api=run_api,
        pools=pools,
    )
    engine.look_s = 0.1
    async with serving(engine):
        yield engine, spawner


@asynccontextmanager
async def polling(
    folder: Path, *, prefect: FakePrefect | None = None, watching: bool = False, **changes: Json
) -> AsyncIterator[tuple[Engine, FakeSpawner]]:
    """An engine whose poller polls, ten seconds apart unless said otherwise."""
    async with fake_engine(folder, prefect=prefect, **changes) as (engine, spawner):
        loops = [asyncio.create_task(engine.poller.run()), asyncio.create_task(engine.poller.look_ups.run())]
        if watching:
            loops.append(asyncio.create_task(engine.cancellations.run()))
        try:
            yield engine, spawner
            assert not [loop for loop in loops if loop.done()], "a loop has ended, and the daemon with it"
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.wait(loops)


def polls(engine: Engine) -> int:
    """Requests for due runs since the last look."""
    return copied(engine.prefect).count(POLL)


def at(engine: Engine) -> float:
    return engine.clock() - START_S


async def started_at(engine: Engine, run_id: str) -> float:
    await engine.until(lambda: running(engine, run_id))
    return at(engine)
