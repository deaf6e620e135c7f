"""Builds the daemon that the control API shows: the parts of a running one, as the contract wants them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from runnerd.config.in_force import ConfigInForce
from runnerd.control.backend.api_calls import ApiCaller
from runnerd.control.backend.deployments import DeploymentsBackend
from runnerd.control.backend.elsewhere import RunsElsewhere
from runnerd.control.backend.executing import Executions
from runnerd.control.backend.health import Health
from runnerd.control.backend.host import DaemonHost, Reload
from runnerd.control.backend.launches import LaunchesBackend
from runnerd.control.backend.metrics import Metrics
from runnerd.control.backend.plans import Plans
from runnerd.control.backend.pools import PoolsBackend
from runnerd.control.backend.retries import Retries
from runnerd.control.backend.runs import RunsBackend
from runnerd.control.backend.status import Status
from runnerd.control.backend.waiting import WaitReasons
from runnerd.core.place import Json
from runnerd.core.problems import Problems
from runnerd.core.record_feed import RecordFeed
from runnerd.core.wakes import Wakes
from runnerd.deployments.registry import Registry
from runnerd.deployments.sources.keeper import SourceKeeper
from runnerd.files.bounded_calls import BoundedCalls
from runnerd.journal.journal import Journal
from runnerd.launch.prepared import Launchers
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
from runnerd.system.usage import Leader, Measured, measure_usage
from runnerd.warm.table import WarmTable


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonParts:
    """Holds the parts of a daemon that its control API shows or asks.

    `served` names the pools of the configuration, `examine` makes the checks of the doctor, `service` says what this
    service was started with.
    """

    api: PrefectApi
    config: ConfigInForce
    problems: Problems
    supervisor: Supervisor
    drain: Drain
    poller: Poller
    blocked: BlockedRuns
    registry: Registry
    sources: SourceKeeper
    launchers: Launchers
    pools: PoolKeeper
    pool_table: PoolTable
    served: Callable[[], Collection[str]]
    events: EventStream
    warm: WarmTable
    notices: NoticeQueue
    journal: Journal
    link: SpawnerLink
    feed: RecordFeed
    wakes: Wakes
    calls: BoundedCalls
    ambient: Ambient
    examine: Callable[[], Coroutine[Any, Any, Json]]
    service: Callable[[], Json]
    reload: Reload
    measure: Callable[[Sequence[Leader]], Measured] = measure_usage


def build_host(parts: DaemonParts) -> DaemonHost:
    """Build the host that the routes see."""
    call_api = ApiCaller(ambient=parts.ambient)
    waits, elsewhere = build_waits(parts), _build_elsewhere(parts, call_api)
    runs = _build_runs(parts, call_api, waits=waits, elsewhere=elsewhere)
    deployments = DeploymentsBackend(
        api=parts.api,
        call_api=call_api,
        config=parts.config,
        registry=parts.registry,
        sources=parts.sources,
        supervisor=parts.supervisor,
        wakes=parts.wakes,
        now=parts.ambient.now,
    )
    health = Health(
        api=parts.api, link=parts.link, journal=parts.journal, pulse=parts.ambient.pulse, examine=parts.examine
    )
    return DaemonHost(
        status=_build_status(parts, runs, deployments),
        health=health,
        metrics=Metrics(
            api=parts.api,
            config=parts.config,
            poller=parts.poller,
            pools=parts.pools,
            registry=parts.registry,
            supervisor=parts.supervisor,
        ),
        runs=runs,
        deployments=deployments,
        pools=PoolsBackend(api=parts.api, call_api=call_api, now=parts.ambient.now, served=parts.served),
        launches=_build_launches(parts, call_api, waits=waits, elsewhere=elsewhere),
        drain=parts.drain,
        reload=parts.reload,
    )


def build_waits(parts: DaemonParts) -> WaitReasons:
    """Build what knows why runs wait."""
    return WaitReasons(
        api=parts.api,
        supervisor=parts.supervisor,
        poller=parts.poller,
        blocked=parts.blocked,
        registry=parts.registry,
        now=parts.ambient.now,
    )


def _build_elsewhere(parts: DaemonParts, call_api: ApiCaller) -> RunsElsewhere:
    return RunsElsewhere(
        api=parts.api,
        call_api=call_api,
        registry=parts.registry,
        pools=parts.pool_table,
        poller=parts.poller,
        now=parts.ambient.now,
    )


def _build_runs(
    parts: DaemonParts, call_api: ApiCaller, *, waits: WaitReasons, elsewhere: RunsElsewhere
) -> RunsBackend:
    """Build the backend of runs; it reads what the other parts know, and changes runs through `supervisor` only."""
    executions = Executions(
        api=parts.api,
        call_api=call_api,
        config=parts.config,
        supervisor=parts.supervisor,
        poller=parts.poller,
        registry=parts.registry,
        calls=parts.calls,
    )
    return RunsBackend(
        api=parts.api,
        waits=waits,
        call_api=call_api,
        elsewhere=elsewhere,
        executions=executions,
        supervisor=parts.supervisor,
        poller=parts.poller,
        registry=parts.registry,
        journal=parts.journal,
        link=parts.link,
        feed=parts.feed,
        output=OutputReader(calls=parts.calls),
        ambient=parts.ambient,
        measure=parts.measure,
    )


def _build_launches(
    parts: DaemonParts, call_api: ApiCaller, *, waits: WaitReasons, elsewhere: RunsElsewhere
) -> LaunchesBackend:
    retries = Retries(
        api=parts.api,
        call_api=call_api,
        elsewhere=elsewhere,
        supervisor=parts.supervisor,
        poller=parts.poller,
        registry=parts.registry,
        now=parts.ambient.now,
    )
    plans = Plans(
        api=parts.api,
        config=parts.config,
        launchers=parts.launchers,
        registry=parts.registry,
        pools=parts.pool_table,
        supervisor=parts.supervisor,
        poller=parts.poller,
        warm=parts.warm,
        waits=waits,
        elsewhere=elsewhere,
        now=parts.ambient.now,
    )
    return LaunchesBackend(call_api=call_api, retries=retries, plans=plans)


def _build_status(parts: DaemonParts, runs: RunsBackend, deployments: DeploymentsBackend) -> Status:
    return Status(
        api=parts.api,
        config=parts.config,
        problems=parts.problems,
        drain=parts.drain,
        runs=runs,
        deployments=deployments,
        pools=parts.pools,
        events=parts.events,
        warm=parts.warm,
        notices=parts.notices,
        service=parts.service,
        ambient=parts.ambient,
    )
