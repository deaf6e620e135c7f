"""Builds the parts that serve work pools."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from runnerd.config.in_force import ConfigInForce
from runnerd.core.problems import Problems
from runnerd.core.record_feed import RecordFeed
from runnerd.core.wakes import Wakes
from runnerd.launch.environment import Environments
from runnerd.launch.spec import ApiAccess
from runnerd.pools.keeper import PoolKeeper
from runnerd.pools.launching import PoolLauncher
from runnerd.pools.offers import PoolOffers
from runnerd.pools.outbox import Outbox
from runnerd.pools.run_notes import RunNotes
from runnerd.pools.table import PoolTable, Served
from runnerd.pools.worker_events import WorkerEvents
from runnerd.pools.workers.worker import PrefectWorker, end_leftovers
from runnerd.prefect_api.client import PrefectApi
from runnerd.processes.link import SpawnerLink
from runnerd.system.ambient import Ambient
from runnerd.system.directories import runs_dir
from runnerd.system.paths import Paths


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolParts:
    """The parts that serve work pools."""

    table: PoolTable
    keeper: PoolKeeper
    offers: PoolOffers
    launcher: PoolLauncher
    outbox: Outbox


def build_pools(
    *,
    api: PrefectApi,
    link: SpawnerLink,
    environments: Environments,
    access: Callable[[], ApiAccess],
    paths: Paths,
    config: ConfigInForce,
    feed: RecordFeed,
    wakes: Wakes,
    problems: Problems,
    ambient: Ambient,
) -> PoolParts:
    """Build the parts."""

    def make_worker(served: Served) -> PrefectWorker:
        return PrefectWorker(
            pool=served.name,
            link=link,
            environments=environments,
            access=access,
            paths=paths,
            name=config.host_name,
            log=ambient.log,
        )

    table = PoolTable(wakes=wakes)
    outbox = Outbox(ambient=ambient)
    RunNotes(api=api.pools, table=table, worker_name=config.host_name, feed=feed, outbox=outbox)
    events = WorkerEvents(
        api=api.pools, table=table, worker_name=config.host_name, feed=feed, outbox=outbox, now=ambient.now
    )
    keeper = PoolKeeper(
        api=api.pools,
        table=table,
        make_worker=make_worker,
        end_leftovers=partial(end_leftovers, link),
        worker_name=config.host_name,
        events=events,
        wakes=wakes,
        problems=problems,
        ambient=ambient,
    )
    return PoolParts(
        table=table,
        keeper=keeper,
        offers=PoolOffers(api=api.pools, table=table, config=config, now=ambient.now, outdated=keeper.outdated),
        launcher=PoolLauncher(
            api=api,
            table=table,
            environments=environments,
            access=access,
            output_dir=runs_dir(paths),
            worker_name=config.host_name,
            backoff=ambient.backoff,
        ),
        outbox=outbox,
    )
