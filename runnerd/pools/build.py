"""The parts that serve work pools, built together: they know each other and little else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from runnerd.launch.environment import Environments
from runnerd.launch.spec import ApiAccess
from runnerd.log.log import Log
from runnerd.pools.keeper import PoolKeeper
from runnerd.pools.launching import PoolLauncher
from runnerd.pools.offers import PoolOffers
from runnerd.pools.run_notes import PoolNotes
from runnerd.pools.table import PoolTable
from runnerd.pools.workers.worker import ForeignWorker, end_leftovers
from runnerd.prefect_api.backoff import Backoff
from runnerd.prefect_api.client import PrefectApi
from runnerd.processes.link import SpawnerLink
from runnerd.system.directories import runs_dir
from runnerd.system.paths import Paths
from runnerd.system.watchdog import Pulse


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolParts:
    table: PoolTable
    keeper: PoolKeeper
    offers: PoolOffers
    launcher: PoolLauncher
    notes: PoolNotes


def build_pools(
    *,
    api: PrefectApi,
    link: SpawnerLink,
    environments: Environments,
    access: Callable[[], ApiAccess],
    paths: Paths,
    worker: Callable[[], str],
    draining: Callable[[], bool],
    found: Callable[[], None],
    now: Callable[[], datetime],
    backoff: Callable[[], Backoff],
    pulse: Pulse,
    log: Log,
) -> PoolParts:
    """`worker` is this host's name among the workers; `found` is called when there is something new to poll."""
    table = PoolTable()
    keeper = PoolKeeper(
        api=api.pools,
        server=api.server,
        table=table,
        other=lambda served: ForeignWorker(
            pool=served.name, link=link, environments=environments, access=access, paths=paths, name=worker, log=log
        ),
        leftovers=lambda pools: end_leftovers(link, pools=pools),
        worker=worker,
        draining=draining,
        found=found,
        now=now,
        backoff=backoff,
        pulse=pulse,
        log=log,
    )
    return PoolParts(
        table=table,
        keeper=keeper,
        offers=PoolOffers(api=api.pools, table=table, now=now, outdated=keeper.outdated),
        launcher=PoolLauncher(
            api=api,
            table=table,
            environments=environments,
            access=access,
            output_dir=runs_dir(paths),
            worker=worker,
            backoff=backoff,
        ),
        notes=PoolNotes(api=api.pools, table=table, worker=worker, backoff=backoff, log=log),
    )
