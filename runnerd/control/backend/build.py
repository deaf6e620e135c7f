"""Builds the daemon that the control API shows: the parts of a running one, as the contract wants them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine
from typing import Any

from runnerd.config.in_force import ConfigInForce
from runnerd.control.backend.api_calls import ApiCaller
from runnerd.control.backend.deployments import DeploymentsBackend
from runnerd.control.backend.elsewhere import RunsElsewhere
from runnerd.control.backend.health import Health
from runnerd.control.backend.host import DaemonHost, Reload
from runnerd.control.backend.metrics import Metrics
from runnerd.control.backend.pools import PoolsBackend
from runnerd.control.backend.runs import RunsBackend
from runnerd.control.backend.status import Status
from runnerd.control.backend.waiting import WaitReasons
from runnerd.core.place import Json
from runnerd.core.problems import Problems
from runnerd.core.record_feed import RecordFeed
from runnerd.core.wakes import Wakes
from runnerd.deployments.registry import Registry
from runnerd.journal.journal import Journal
from runnerd.notices.queue import NoticeQueue
from runnerd.output.output_file import OutputReader
from runnerd.polling.event_stream import EventStream
from runnerd.polling.poller import Poller
from runnerd.pools.keeper import PoolKeeper
from runnerd.pools.table import PoolTable
from runnerd.prefect_api.client import PrefectApi
from runnerd.processes.link import SpawnerLink
from runnerd.runs.blocked import BlockedRuns
from runnerd.runs.drain import Drain
from runnerd.runs.supervisor import Supervisor
from runnerd.system.ambient import Ambient
from runnerd.warm.table import WarmTable


def build_runs(
    *,
    api: PrefectApi,
    call_api: ApiCaller,
    supervisor: Supervisor,
    poller: Poller,
    registry: Registry,
    pools: PoolTable,
    blocked: BlockedRuns,
    journal: Journal,
    link: SpawnerLink,
    feed: RecordFeed,
    output: OutputReader,
    ambient: Ambient,
) -> RunsBackend:
    """Build the backend of runs; it reads what the other parts know, and changes runs through `supervisor` only."""
    waits = WaitReasons(
        api=api, supervisor=supervisor, poller=poller, blocked=blocked, registry=registry, now=ambient.now
    )
    elsewhere = RunsElsewhere(
        api=api, call_api=call_api, registry=registry, pools=pools, poller=poller, now=ambient.now
    )
    return RunsBackend(
        api=api,
        waits=waits,
        call_api=call_api,
        elsewhere=elsewhere,
        supervisor=supervisor,
        poller=poller,
        registry=registry,
        journal=journal,
        link=link,
        feed=feed,
        output=output,
        ambient=ambient,
    )


def build_host(
    *,
    api: PrefectApi,
    config: ConfigInForce,
    problems: Problems,
    supervisor: Supervisor,
    drain: Drain,
    poller: Poller,
    registry: Registry,
    runs: RunsBackend,
    pools: PoolKeeper,
    served: Callable[[], Collection[str]],
    events: EventStream,
    warm: WarmTable,
    notices: NoticeQueue,
    journal: Journal,
    link: SpawnerLink,
    wakes: Wakes,
    call_api: ApiCaller,
    ambient: Ambient,
    examine: Callable[[], Coroutine[Any, Any, Json]],
    service: Callable[[], Json],
    reload: Reload,
) -> DaemonHost:
    """Build the host. `served` names the pools of the configuration, `examine` makes the checks of the doctor.

    `service`: what this service was started with.
    """
    deployments = DeploymentsBackend(
        api=api, call_api=call_api, config=config, registry=registry, supervisor=supervisor, wakes=wakes
    )
    status = Status(
        api=api,
        config=config,
        problems=problems,
        drain=drain,
        runs=runs,
        deployments=deployments,
        pools=pools,
        events=events,
        warm=warm,
        notices=notices,
        service=service,
        ambient=ambient,
    )
    return DaemonHost(
        status=status,
        health=Health(api=api, link=link, journal=journal, pulse=ambient.pulse, examine=examine),
        metrics=Metrics(api=api, config=config, poller=poller, pools=pools, registry=registry, supervisor=supervisor),
        runs=runs,
        deployments=deployments,
        pools=PoolsBackend(api=api, call_api=call_api, now=ambient.now, served=served),
        drain=drain,
        reload=reload,
    )
