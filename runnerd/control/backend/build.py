"""Builds what answers requests about runs."""

from __future__ import annotations

from runnerd.control.backend.api_calls import ApiCaller
from runnerd.control.backend.elsewhere import RunsElsewhere
from runnerd.control.backend.runs import RunsBackend
from runnerd.control.backend.waiting import WaitReasons
from runnerd.core.record_feed import RecordFeed
from runnerd.deployments.registry import Registry
from runnerd.journal.journal import Journal
from runnerd.output.output_file import OutputReader
from runnerd.polling.poller import Poller
from runnerd.pools.table import PoolTable
from runnerd.prefect_api.client import PrefectApi
from runnerd.processes.link import SpawnerLink
from runnerd.runs.supervisor import Supervisor
from runnerd.system.ambient import Ambient


def build_runs(
    *,
    api: PrefectApi,
    call_api: ApiCaller,
    supervisor: Supervisor,
    poller: Poller,
    registry: Registry,
    pools: PoolTable,
    journal: Journal,
    link: SpawnerLink,
    feed: RecordFeed,
    output: OutputReader,
    ambient: Ambient,
) -> RunsBackend:
    """Build the backend of runs; it reads what the other parts know, and changes runs through `supervisor` only."""
    waits = WaitReasons(api=api, supervisor=supervisor, poller=poller, registry=registry, now=ambient.now)
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
