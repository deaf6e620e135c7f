"""Builds the parts that poll the API for due runs."""

from __future__ import annotations

import os
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from runnerd.config.in_force import ConfigInForce
from runnerd.core.leads import Leads
from runnerd.core.pace import Pace
from runnerd.core.prefect import FlowRun
from runnerd.core.problems import Problems
from runnerd.core.record_feed import RecordFeed
from runnerd.core.wakes import Wakes
from runnerd.deployments.registry import Registry
from runnerd.journal.journal import Journal
from runnerd.polling.cancellations import Cancellations
from runnerd.polling.deployment_pages import DeploymentPages
from runnerd.polling.event_stream import EventStream
from runnerd.polling.intervals import Intervals
from runnerd.polling.late_runs import LateRuns
from runnerd.polling.learning import learn_leads
from runnerd.polling.look_ups import LookUps
from runnerd.polling.offering import Offering
from runnerd.polling.parents import Parents
from runnerd.polling.poll_round import PollRound
from runnerd.polling.poller import Poller
from runnerd.polling.pool_pages import PoolPages
from runnerd.polling.progress import PollProgress
from runnerd.polling.server_limits import ServerLimits
from runnerd.pools.changes import PoolChanges
from runnerd.pools.offers import PoolOffers
from runnerd.prefect_api.client import PrefectApi
from runnerd.prefect_api.event_socket import EventSocket
from runnerd.prefect_api.websocket import Refusal
from runnerd.runs.abandoned import AbandonedRuns
from runnerd.runs.blocked import BlockedRuns
from runnerd.runs.supervisor import Supervisor
from runnerd.system.ambient import Ambient

_PROCESSORS = os.cpu_count() or 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PollingParts:
    """The parts that ask the API about runs."""

    poller: Poller
    cancellations: Cancellations
    abandoned: AbandonedRuns
    blocked: BlockedRuns
    events: EventStream


def build_polling(
    *,
    api: PrefectApi,
    supervisor: Supervisor,
    registry: Registry,
    journal: Journal,
    pools: PoolOffers,
    config: ConfigInForce,
    wakes: Wakes,
    ambient: Ambient,
    problems: Problems,
    pace: Pace,
    subscribe: Callable[[], Awaitable[EventSocket | Refusal]],
    changes: PoolChanges,
    feed: RecordFeed,
    on_late: Callable[[FlowRun], None],
    processors: int = _PROCESSORS,
    jitter: Callable[[], float] = random.random,
) -> PollingParts:
    """Build the parts. `jitter` (0 to 1) spreads the polls of many hosts."""
    abandoned = AbandonedRuns(
        api=api,
        supervisor=supervisor,
        journal=journal,
        deployments=registry.own_ids,
        pools=lambda: [served.name for served in pools.open_pools()],
        ambient=ambient,
        problems=problems,
    )
    poller = _build_poller(
        api=api,
        supervisor=supervisor,
        registry=registry,
        pools=pools,
        config=config,
        wakes=wakes,
        ambient=ambient,
        problems=problems,
        abandoned=abandoned,
        pace=pace,
        on_late=on_late,
        leads=learn_leads(journal=journal, feed=feed, processors=processors),
        jitter=jitter,
    )
    blocked = BlockedRuns(
        supervisor=supervisor, waiting=poller.on_offer.all_waiting, parent_of=poller.parents.parent_of
    )
    cancels = Cancellations(api=api, supervisor=supervisor, config=config, pace=pace, wakes=wakes, ambient=ambient)
    events = EventStream(
        subscribe=subscribe,
        api=api,
        supervisor=supervisor,
        registry=registry,
        pools=changes,
        host_name=config.host_name,
        pace=pace,
        wakes=wakes,
        ambient=ambient,
    )
    return PollingParts(poller=poller, cancellations=cancels, abandoned=abandoned, blocked=blocked, events=events)


def _build_poller(
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
    on_late: Callable[[FlowRun], None],
    leads: Leads,
    jitter: Callable[[], float],
) -> Poller:
    progress, limits = PollProgress(ambient=ambient), ServerLimits(pools=pools, supervisor=supervisor)
    offering = Offering(supervisor=supervisor, pools=pools, limits=limits, leads=leads, config=config, ambient=ambient)
    deployment_pages = DeploymentPages(
        api=api,
        supervisor=supervisor,
        offering=offering,
        late=LateRuns(api=api, config=config, pace=pace, ambient=ambient, on_late=on_late),
        progress=progress,
        pace=pace,
        config=config,
        ambient=ambient,
    )
    pool_pages = PoolPages(
        pools=pools, registry=registry, supervisor=supervisor, offering=offering, limits=limits, progress=progress
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
