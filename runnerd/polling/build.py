"""Builds the parts that poll the API for due runs."""

from __future__ import annotations

import random
from collections.abc import Callable

from runnerd.config.in_force import ConfigInForce
from runnerd.core.pace import Pace
from runnerd.core.problems import Problems
from runnerd.core.wakes import Wakes
from runnerd.deployments.registry import Registry
from runnerd.polling.deployment_pages import DeploymentPages
from runnerd.polling.intervals import Intervals
from runnerd.polling.late_runs import LateRuns
from runnerd.polling.look_ups import LookUps
from runnerd.polling.offering import Offering
from runnerd.polling.parents import Parents
from runnerd.polling.poll_round import PollRound
from runnerd.polling.poller import Poller
from runnerd.polling.pool_pages import PoolPages
from runnerd.polling.progress import PollProgress
from runnerd.polling.server_limits import ServerLimits
from runnerd.pools.offers import PoolOffers
from runnerd.prefect_api.client import PrefectApi
from runnerd.runs.abandoned import AbandonedRuns
from runnerd.runs.supervisor import Supervisor
from runnerd.system.ambient import Ambient


def build_poller(
    *,
    api: PrefectApi,
    supervisor: Supervisor,
    registry: Registry,
    pools: PoolOffers,
    config: ConfigInForce,
    wakes: Wakes,
    ambient: Ambient,
    problems: Problems,
    abandoned: AbandonedRuns,
    pace: Pace,
    jitter: Callable[[], float] = random.random,
) -> Poller:
    """Build a poller for own deployments and pools. `jitter` (0 to 1) spreads the polls of many hosts."""
    progress = PollProgress(ambient=ambient)
    limits = ServerLimits(pools=pools, supervisor=supervisor)
    offering = Offering(supervisor=supervisor, pools=pools, limits=limits, config=config, ambient=ambient)
    deployment_pages = DeploymentPages(
        api=api,
        supervisor=supervisor,
        offering=offering,
        late=LateRuns(api=api, config=config, ambient=ambient),
        progress=progress,
        pace=pace,
        config=config,
        ambient=ambient,
    )
    pool_pages = PoolPages(
        pools=pools,
        registry=registry,
        supervisor=supervisor,
        offering=offering,
        limits=limits,
        progress=progress,
    )
    parents = Parents(api=api, on_offer=offering.on_offer, clock=ambient.clock)
    look_ups = LookUps(parents=parents, abandoned=abandoned, ambient=ambient)
    intervals = Intervals(
        pools=pools, config=config, clock=ambient.clock, backoff=ambient.backoff, pace=pace, jitter=jitter
    )
    poll_round = PollRound(
        api=api,
        registry=registry,
        pools=pools,
        deployment_pages=deployment_pages,
        pool_pages=pool_pages,
        intervals=intervals,
        offering=offering,
        look_ups=look_ups,
        progress=progress,
        problems=problems,
        ambient=ambient,
    )
    return Poller(
        poll_round=poll_round,
        offering=offering,
        parents=parents,
        look_ups=look_ups,
        intervals=intervals,
        progress=progress,
        wakes=wakes,
        config=config,
        ambient=ambient,
    )
