"""Work pools for tests of the engine: their settings, a table that knows them, and a keeper between fakes."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from runnerd.core.backoff import Backoff
from runnerd.core.machine import RunRecord
from runnerd.core.pace import Pace
from runnerd.core.place import Place
from runnerd.core.prefect import WorkerType
from runnerd.core.problems import Problems
from runnerd.core.process import LaunchSpec
from runnerd.core.record_feed import RecordFeed
from runnerd.core.settings import PoolSettings, RunSettings
from runnerd.core.wakes import Wakes
from runnerd.deployments.launching import FlowLauncher
from runnerd.deployments.registry import Registry
from runnerd.files.bounded_calls import BoundedCalls
from runnerd.launch.environment import Environments
from runnerd.launch.prepared import Launchers
from runnerd.launch.scratch import tidy_key
from runnerd.launch.spec import ApiAccess
from runnerd.pools.job.process_job import process_template
from runnerd.pools.keeper import PoolKeeper
from runnerd.pools.launching import PoolLauncher
from runnerd.pools.outbox import Outbox
from runnerd.pools.resolving import JobResolver
from runnerd.pools.table import PoolTable, Served
from runnerd.pools.worker_channel import OpenChannel
from runnerd.pools.worker_events import WorkerEvents
from runnerd.prefect_api.answers import ServerInfo
from runnerd.prefect_api.client import PrefectApi
from runnerd.system.side_process import Asking
from runnerd.system.watchdog import Pulse
from tests.kits.channels import HOST, heartbeats_of, no_channel, no_leftovers
from tests.kits.engine import Engine, an_ambient, fake_engine
from tests.kits.engine_parts import NotedEvent, start_cold
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.fakes.fake_spawner import FakeSpawner
from tests.kits.nouns import URL, Json, LogLines, copied, fake_api
from tests.kits.sources import no_sources
from tests.kits.templates import AskedHere


def pool_settings(name: str = "etl", *, run: Mapping[str, Json] | None = None, **changes: Json) -> PoolSettings:
    """`run` are keys of its run: section."""
    settings = RunSettings(**{"python": sys.executable, "working_directory": "/srv/flows", **(run or {})})
    return PoolSettings(
        **{"name": name, "run": settings, "place": Place("/etc/runnerd/conf.d/20.yaml", 4, 7), **changes}
    )


def serve(table: PoolTable, prefect: FakePrefect, *wanted: PoolSettings) -> None:
    """Want these, and know of each what the API has: every queue of it, or those that are named."""
    table.want(wanted)
    for settings in wanted:
        known = table.get(settings.name)
        assert known is not None
        queues = [q for q in prefect.pools.queues(settings.name) if q.name in (settings.queues or (q.name,))]
        pool = prefect.pools.read_pool(settings.name)
        assert table.put(Served(settings=settings, pool=pool, queues=tuple(queues)), known=known)


@dataclass
class FakePrefectWorker:
    """Prefect's own worker as PoolKeeper sees it: what it was asked for, and what became of it."""

    wanted: list[tuple[Served, WorkerType | None, int]] = field(default_factory=list)
    steps: str = ""
    problem: str | None = None
    slow_s: float = 0.0  # how long it takes to stop

    async def want(self, served: Served, *, kind: WorkerType | None, server: ServerInfo) -> None:
        self.wanted.append((served, kind, server.major))

    async def run(self) -> None:
        self.steps += "run "
        try:
            await asyncio.Event().wait()
        finally:
            self.steps += "left "

    async def stop(self) -> None:
        await asyncio.sleep(self.slow_s)
        self.steps += "stopped "

    def document(self) -> Mapping[str, Any]:
        return {"pid": 17}


@dataclass
class Keeping:
    """A keeper between fakes; `found` counts how often there was something new to poll."""

    prefect: FakePrefect
    keeper: PoolKeeper
    table: PoolTable
    lines: LogLines
    pulse: Pulse
    workers: dict[str, list[FakePrefectWorker]]
    found: list[float]
    loop: asyncio.AbstractEventLoop
    wakes: Wakes
    feed: RecordFeed
    pace: Pace
    api: PrefectApi

    def served(self, name: str = "etl") -> Served:
        known = self.table.get(name)
        assert known is not None
        return known

    def asked(self, what: str) -> int:
        """Such requests since the last look, `METHOD /path`; all workers are forgotten too."""
        return copied(self.prefect).count(what)

    def problems(self) -> dict[str, str]:
        return {served.name: why for served, why in self.keeper.problems()}

    async def want(self, *wanted: PoolSettings) -> None:
        """And let the keeper have a look at them."""
        self.table.want(wanted)
        await asyncio.sleep(1)


@asynccontextmanager
async def keeping(
    *wanted: PoolSettings,
    prefect: FakePrefect | None = None,
    job_problem: Callable[[str], str | None] = lambda _pool: None,
    open_channel: OpenChannel | None = None,
) -> AsyncIterator[Keeping]:
    """A keeper at work on these, by the clock of the running loop."""
    loop: Any = asyncio.get_running_loop()
    prefect = prefect or FakePrefect(major=3)
    found: list[float] = []
    wakes = Wakes(poll=NotedEvent(lambda: found.append(loop.time())))
    api, table, lines = fake_api(prefect, now=loop.utcnow), PoolTable(wakes=wakes), LogLines()
    backoff = lambda: Backoff(first_s=0.5, cap_s=30.0, uniform=random.Random(1).random)  # noqa: E731
    ambient = replace(an_ambient(lines, now=loop.utcnow, clock=loop.time), backoff=backoff)
    feed, outbox = RecordFeed(), Outbox(ambient=ambient)
    workers: dict[str, list[FakePrefectWorker]] = {}

    def make_worker(served: Served) -> FakePrefectWorker:
        workers.setdefault(served.name, []).append(FakePrefectWorker())
        return workers[served.name][-1]

    pace = Pace()
    events = WorkerEvents(
        api=api.pools, table=table, worker_name=lambda: HOST, feed=feed, outbox=outbox, now=ambient.now
    )
    keeper = PoolKeeper(
        api=api.pools,
        table=table,
        make_worker=make_worker,
        end_leftovers=no_leftovers,
        heartbeats=heartbeats_of(api, open_channel or no_channel, events, wakes, ambient),
        calls=BoundedCalls(),
        job_problem=job_problem,
        events=events,
        pace=pace,
        wakes=wakes,
        problems=Problems(),
        ambient=ambient,
    )
    table.want(wanted)
    tasks = {asyncio.create_task(keeper.run()), asyncio.create_task(outbox.run())}
    try:
        await asyncio.sleep(1)
        yield Keeping(prefect, keeper, table, lines, ambient.pulse, workers, found, loop, wakes, feed, pace, api)
        ended = [task for task in tasks if task.done()]
        assert not ended, f"a loop has ended, and the daemon with it: {ended}"
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await api.close()


def a_keeper(engine: Engine) -> PoolKeeper:
    """A keeper of an engine's pools that does nothing by itself."""

    def make_worker(served: Served) -> FakePrefectWorker:
        raise AssertionError(f"work pool {served.name} is not to be looked at")

    events = WorkerEvents(
        api=engine.api.pools, table=engine.pools, worker_name=lambda: HOST, feed=engine.feed,
        outbox=Outbox(ambient=engine.ambient), now=engine.now,
    )  # fmt: skip
    return PoolKeeper(
        api=engine.api.pools,
        table=engine.pools,
        make_worker=make_worker,
        end_leftovers=no_leftovers,
        heartbeats=heartbeats_of(engine.api, no_channel, events, engine.wakes, engine.ambient),
        calls=BoundedCalls(),
        job_problem=lambda _pool: None,
        events=events,
        pace=engine.pace,
        wakes=engine.wakes,
        problems=engine.problems,
        ambient=engine.ambient,
    )


# --- around an engine whose poller polls ---


def offered_by(pool: str) -> str:
    return f"POST /work_pools/{pool}/get_scheduled_flow_runs"


def asked(engine: Engine, pool: str = "etl") -> int:
    """Requests for this pool's runs since the last look."""
    return copied(engine.prefect).count(offered_by(pool))


def with_pools(**pools: Mapping[str, Json]) -> FakePrefect:
    """By name what is said of each when it is made; `queues` in the order of their priorities."""
    prefect = FakePrefect(major=3)
    for name, about in pools.items():
        prefect.pools.create_pool(name, **{key: value for key, value in about.items() if key != "queues"})
        for queue in about.get("queues", ()):
            prefect.pools.create_queue(name, queue)
    return prefect


def kick(engine: Engine, *wanted: PoolSettings) -> None:
    serve(engine.pools, engine.prefect, *wanted)
    engine.wakes.poll_now()


def pooled(engine: Engine, pool: str = "etl", **more: Json) -> str:
    """A deployment of somebody else's in this pool; its id."""
    return engine.prefect.pools.add_deployment(pool, **more)


async def end(engine: Engine, spawner: FakeSpawner, run_id: str) -> None:
    engine.prefect.set_state(run_id, "COMPLETED")
    spawner.exit(run_id)
    await engine.until_done(run_id)


# --- around an engine that launches as a daemon does --------------------------------------------------------------


@asynccontextmanager
async def launching(
    folder: Path,
    *,
    prefect: FakePrefect,
    wanted: Sequence[PoolSettings] | None = None,
    side: Asking | None = None,
    calls: BoundedCalls | None = None,
    **more: Json,
) -> AsyncIterator[tuple[Engine, FakeSpawner]]:
    """An engine with the real launchers, which serves these pools; else `etl`, which is made where it is missing.

    `more` is for fake_engine.
    """
    loop: Any = asyncio.get_running_loop()
    if wanted is None and "etl" not in prefect.pools.pools:
        prefect.pools.create_pool("etl", base_job_template=process_template(prefect.major))
    table = PoolTable()
    serve(table, prefect, *([pool_settings()] if wanted is None else wanted))
    api = fake_api(prefect, now=loop.utcnow)
    access = ApiAccess(url=URL, environment={"PREFECT_API_KEY": "secret-key"})

    def launchers(registry: Registry) -> Launchers:
        environ = {"LANG": "C.UTF-8", "OF_THE_DAEMON": "secret"}
        environments = Environments(environ=environ, calls=calls or BoundedCalls())
        own = FlowLauncher(
            registry=registry,
            sources=no_sources(),
            access=lambda: access,
            output_dir="/out",
            environments=environments,
            worker_name=lambda: HOST,
        )
        pools = PoolLauncher(
            api=api,
            table=table,
            jobs=JobResolver(side=side or AskedHere(), clock=loop.time),
            environments=environments,
            access=lambda: access,
            output_dir="/out",
            worker_name=lambda: HOST,
            backoff=lambda: Backoff(first_s=0.1, cap_s=5.0, uniform=random.Random(1).random),
        )
        return Launchers(own=own, pools=pools, choose=start_cold)

    async with fake_engine(folder, prefect=prefect, pools=table, launcher=launchers, **more) as (engine, spawner):
        yield engine, spawner


async def offer(engine: Engine, run_id: str) -> None:
    """Offer it as its pool does."""
    found = await engine.api.pools.placed_run(run_id)
    assert found is not None
    assert engine.supervisor.offer([found]).claimed == (run_id,)


async def launched(engine: Engine, spawner: FakeSpawner, run_id: str) -> LaunchSpec:
    """What the spawner was asked to start for this run, once it was."""
    if engine.supervisor.run(run_id) is None:
        await offer(engine, run_id)
    await engine.until(lambda: spawner.runs_of(run_id))
    return spawner.runs_of(run_id)[-1]


async def finish(engine: Engine, spawner: FakeSpawner, run_id: str) -> RunRecord:
    """It completes, and what it left behind is removed; its record."""
    engine.prefect.set_state(run_id, "COMPLETED")
    spawner.exit(run_id)
    return await tidied(engine, spawner, run_id)


async def tidied(engine: Engine, spawner: FakeSpawner, run_id: str) -> RunRecord:
    """Its record once it is done, with its directory removed."""
    await engine.until(lambda: engine.supervisor.run(run_id) is None or tidy_key(run_id) in spawner.live())
    if engine.supervisor.run(run_id) is not None:
        spawner.exit(tidy_key(run_id))
    return await engine.until_done(run_id)
