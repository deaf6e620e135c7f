"""Builds the parts that serve work pools."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from runnerd.config.in_force import ConfigInForce
from runnerd.core.pace import Pace
from runnerd.core.problems import Problems
from runnerd.core.record_feed import RecordFeed
from runnerd.core.wakes import Wakes
from runnerd.files.bounded_calls import BoundedCalls
from runnerd.launch.environment import Environments
from runnerd.launch.spec import ApiAccess
from runnerd.pools.changes import PoolChanges
from runnerd.pools.heartbeats import Heartbeats
from runnerd.pools.job.side import LIMITS, SIDE
from runnerd.pools.keeper import PoolKeeper
from runnerd.pools.launching import PoolLauncher
from runnerd.pools.offers import PoolOffers
from runnerd.pools.outbox import Outbox
from runnerd.pools.resolving import JobResolver
from runnerd.pools.run_notes import RunNotes
from runnerd.pools.table import PoolTable
from runnerd.pools.worker_channel import OpenChannel, WorkerChannels
from runnerd.pools.worker_events import WorkerEvents
from runnerd.pools.workers.worker import PrefectWorker, end_leftovers
from runnerd.prefect_api.client import PrefectApi
from runnerd.processes.link import SpawnerLink
from runnerd.system.ambient import Ambient
from runnerd.system.directories import runs_dir
from runnerd.system.paths import Paths
from runnerd.system.side_process import SideProcess


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolParts:
    """The parts that serve work pools."""

    jobs: JobResolver
    table: PoolTable
    keeper: PoolKeeper
    changes: PoolChanges
    offers: PoolOffers
    launcher: PoolLauncher
    outbox: Outbox


def build_pools(
    *,
    api: PrefectApi,
    open_channel: OpenChannel,
    link: SpawnerLink,
    environments: Environments,
    access: Callable[[], ApiAccess],
    paths: Paths,
    config: ConfigInForce,
    feed: RecordFeed,
    pace: Pace,
    wakes: Wakes,
    problems: Problems,
    calls: BoundedCalls,
    ambient: Ambient,
) -> PoolParts:
    """Build the parts."""
    name = config.host_name
    make_worker = partial(
        PrefectWorker, link=link, environments=environments, access=access, paths=paths, name=name, log=ambient.log
    )
    table = PoolTable(wakes=wakes)
    outbox = Outbox(ambient=ambient)
    RunNotes(api=api.pools, table=table, worker_name=name, feed=feed, outbox=outbox)
    events = WorkerEvents(api=api.pools, table=table, worker_name=name, feed=feed, outbox=outbox, now=ambient.now)
    jobs = JobResolver(side=SideProcess(module=SIDE, limits=LIMITS), clock=ambient.clock)
    channels = WorkerChannels(open_channel=open_channel, ambient=ambient)
    beats = Heartbeats(api=api.pools, channels=channels, worker_name=name, events=events, wakes=wakes, ambient=ambient)
    keeper = PoolKeeper(
        api=api.pools,
        table=table,
        make_worker=lambda served: make_worker(pool=served.name),
        end_leftovers=partial(end_leftovers, link),
        heartbeats=beats,
        calls=calls,
        job_problem=jobs.problem,
        events=events,
        pace=pace,
        wakes=wakes,
        problems=problems,
        ambient=ambient,
    )
    return PoolParts(
        jobs=jobs,
        table=table,
        keeper=keeper,
        changes=PoolChanges(table=table, outdated=keeper.outdated, wakes=wakes),
        offers=_build_offers(api, table, config, pace, keeper, ambient),
        launcher=PoolLauncher(
            api=api,
            table=table,
            jobs=jobs,
            environments=environments,
            access=access,
            output_dir=runs_dir(paths),
            worker_name=name,
            backoff=ambient.backoff,
        ),
        outbox=outbox,
    )


def _build_offers(
    api: PrefectApi, table: PoolTable, config: ConfigInForce, pace: Pace, keeper: PoolKeeper, ambient: Ambient
) -> PoolOffers:
    return PoolOffers(api=api.pools, table=table, config=config, pace=pace, now=ambient.now, outdated=keeper.outdated)
