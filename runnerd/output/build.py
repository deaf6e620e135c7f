"""Builds the parts that carry the output of runs further, to systemd's journal and to Prefect, and bound its size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from runnerd.config.in_force import ConfigInForce
from runnerd.core.machine import RunRecord
from runnerd.core.record_feed import RecordFeed
from runnerd.files.bounded_calls import BoundedCalls
from runnerd.journal.journal import Journal
from runnerd.log.journald import Journald
from runnerd.output.api_logs import CommandLogs
from runnerd.output.forwarding import Forwarder
from runnerd.output.total_bound import TotalBound
from runnerd.prefect_api.client import PrefectApi
from runnerd.prefect_api.logs import LogsApi
from runnerd.system.ambient import Ambient
from runnerd.system.directories import runs_dir
from runnerd.system.paths import Paths


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputParts:
    """The parts, each with a loop of its own."""

    forwarder: Forwarder
    command_logs: CommandLogs
    total_bound: TotalBound


def build_output(
    *,
    api: PrefectApi,
    journald: Journald | None,
    journal: Journal,
    paths: Paths,
    records: Callable[[], Sequence[RunRecord]],
    calls: BoundedCalls,
    config: ConfigInForce,
    feed: RecordFeed,
    ambient: Ambient,
) -> OutputParts:
    """Build the parts. `records`: those of the runs under way."""
    forwarder = Forwarder(
        journald=journald,
        paths=paths,
        records=records,
        config=config,
        feed=feed,
        log=ambient.log,
        clock=ambient.clock,
    )
    command_logs = CommandLogs(
        api=LogsApi(transport=api.transport),
        folder=runs_dir(paths),
        records=records,
        calls=calls,
        host_name=config.host_name,
        feed=feed,
        ambient=ambient,
    )
    total_bound = TotalBound(folder=runs_dir(paths), config=config, records=records, journal=journal, log=ambient.log)
    return OutputParts(forwarder=forwarder, command_logs=command_logs, total_bound=total_bound)
