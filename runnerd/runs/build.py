"""Builds the parts that take the runs of this host from their claims to their reports."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from runnerd.config.in_force import ConfigInForce
from runnerd.core.limits import PoolCaps
from runnerd.core.machine import Hook, RunRecord
from runnerd.core.place import Json
from runnerd.core.prefect import FlowRun
from runnerd.core.problems import Problems
from runnerd.core.record_feed import RecordFeed
from runnerd.core.wakes import Wakes
from runnerd.deployments.registry import Registry
from runnerd.files.bounded_calls import BoundedCalls
from runnerd.journal.journal import Journal
from runnerd.launch.environment import Environments
from runnerd.launch.prepared import Launcher
from runnerd.notices.build import NoticeParts, build_notices
from runnerd.prefect_api.client import PrefectApi
from runnerd.processes.link import SpawnerLink
from runnerd.runs.drain import Drain
from runnerd.runs.receipt_checks import ReceiptChecks
from runnerd.runs.record_store import RunContext
from runnerd.runs.supervisor import Supervisor
from runnerd.system.ambient import Ambient
from runnerd.system.directories import runs_dir, work_dir
from runnerd.system.disk_room import DiskRoom
from runnerd.system.paths import Paths


@dataclass(frozen=True, slots=True, kw_only=True)
class RunParts:
    """The parts, which share one supervisor."""

    supervisor: Supervisor
    receipt_checks: ReceiptChecks
    drain: Drain
    room: DiskRoom
    notices: NoticeParts


def build_supervision(
    *,
    api: PrefectApi,
    link: SpawnerLink,
    journal: Journal,
    launcher: Launcher,
    environments: Environments,
    ended: Callable[[RunRecord], Json],
    late: Callable[[FlowRun], Json],
    hooked: Callable[[RunRecord, Hook], Awaitable[bool]],
    registry: Registry,
    pool_caps: Callable[[], Mapping[str, PoolCaps]],
    paths: Paths,
    calls: BoundedCalls,
    tasks: asyncio.TaskGroup,
    config: ConfigInForce,
    feed: RecordFeed,
    wakes: Wakes,
    problems: Problems,
    ambient: Ambient,
) -> RunParts:
    """Build the parts. `hooked`: whether the flow of a run has a hook.

    `ended`, `late`: make the documents of runs that administrators' commands get.
    """
    notices = build_notices(
        link=link,
        journal=journal,
        environments=environments,
        config=config,
        calls=calls,
        work_dir=work_dir(paths),
        find=lambda one: entry.deployment if (entry := registry.last_known(one)) is not None else None,
        ended=ended,
        late=late,
        problems=problems,
        ambient=ambient,
    )
    folders = (os.path.dirname(paths.spawner_socket), runs_dir(paths))  # every run is recorded in each
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
        notice_maker=notices.maker,
        notice_queue=notices.queue,
    )
    supervisor = Supervisor(context=context, registry=registry, pool_caps=pool_caps, tasks=tasks, wakes=wakes)
    receipt_checks = ReceiptChecks(context=context, supervisor=supervisor)
    drain = Drain(supervisor=supervisor, wakes=wakes, now=ambient.now)
    return RunParts(supervisor=supervisor, receipt_checks=receipt_checks, drain=drain, room=room, notices=notices)
