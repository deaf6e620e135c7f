"""Builds the parts that take the runs of this host from their claims to their reports."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from runnerd.config.in_force import ConfigInForce
from runnerd.core.limits import PoolCaps
from runnerd.core.machine import Hook, RunRecord
from runnerd.core.problems import Problems
from runnerd.core.record_feed import RecordFeed
from runnerd.core.wakes import Wakes
from runnerd.deployments.registry import Registry
from runnerd.files.bounded_calls import BoundedCalls
from runnerd.journal.journal import Journal
from runnerd.launch.prepared import Launcher
from runnerd.prefect_api.client import PrefectApi
from runnerd.processes.link import SpawnerLink
from runnerd.runs.drain import Drain
from runnerd.runs.receipt_checks import ReceiptChecks
from runnerd.runs.record_store import RunContext
from runnerd.runs.supervisor import Supervisor
from runnerd.system.ambient import Ambient
from runnerd.system.disk_room import DiskRoom


@dataclass(frozen=True, slots=True, kw_only=True)
class RunParts:
    """The parts, which share one supervisor."""

    supervisor: Supervisor
    receipt_checks: ReceiptChecks
    drain: Drain
    room: DiskRoom


def build_supervision(
    *,
    api: PrefectApi,
    link: SpawnerLink,
    journal: Journal,
    launcher: Launcher,
    hooked: Callable[[RunRecord, Hook], Awaitable[bool]],
    registry: Registry,
    pool_caps: Callable[[], Mapping[str, PoolCaps]],
    folders: Sequence[str],
    calls: BoundedCalls,
    tasks: asyncio.TaskGroup,
    config: ConfigInForce,
    feed: RecordFeed,
    wakes: Wakes,
    problems: Problems,
    ambient: Ambient,
) -> RunParts:
    """Build the parts. Every run is recorded in each of `folders`; `hooked`: whether its flow has a hook."""
    room = DiskRoom(directories=folders, calls=calls, log=ambient.log)
    problems.register_text(room.problem)
    context = RunContext(
        api=api,
        link=link,
        journal=journal,
        launcher=launcher,
        ambient=ambient,
        config=config,
        feed=feed,
        hooked=hooked,
        command_of=registry.command_of,
        room=room,
    )
    supervisor = Supervisor(context=context, registry=registry, pool_caps=pool_caps, tasks=tasks, wakes=wakes)
    receipt_checks = ReceiptChecks(
        api=api, supervisor=supervisor, journal=journal, config=config, feed=feed, ambient=ambient
    )
    drain = Drain(supervisor=supervisor, wakes=wakes, now=ambient.now)
    return RunParts(supervisor=supervisor, receipt_checks=receipt_checks, drain=drain, room=room)
