"""Builds the parts that inspect, register, refresh and recheck this host's own deployments."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from runnerd.config.in_force import ConfigInForce
from runnerd.core.machine import RunRecord
from runnerd.core.problems import Problems
from runnerd.core.record_feed import RecordFeed
from runnerd.core.wakes import Wakes
from runnerd.deployments.command_launching import CommandLauncher, OwnLauncher
from runnerd.deployments.host_automations import HostAutomations
from runnerd.deployments.inspector import Inspector
from runnerd.deployments.launching import FlowLauncher
from runnerd.deployments.rechecking import Rechecker
from runnerd.deployments.refresher import Refresher
from runnerd.deployments.registrar import Registrar
from runnerd.deployments.registry import Registry
from runnerd.deployments.relocating import Relocator
from runnerd.deployments.script_reading import ScriptReading
from runnerd.deployments.script_recorder import ScriptRecorder
from runnerd.deployments.sources.build import build_sources
from runnerd.deployments.sources.keeper import SourceKeeper
from runnerd.deployments.sources.run_code import RunCode
from runnerd.deployments.stop_pauses import StopPauses
from runnerd.files.bounded_calls import BoundedCalls
from runnerd.journal.journal import Journal
from runnerd.launch.environment import Environments
from runnerd.launch.spec import ApiAccess
from runnerd.prefect_api.client import PrefectApi
from runnerd.processes.link import SpawnerLink
from runnerd.system.ambient import Ambient
from runnerd.system.directories import runs_dir, work_dir
from runnerd.system.paths import Paths

_INSPECTIONS_MIN, _INSPECTIONS_MAX = 2, 4  # processes at once; each is an import of prefect


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentParts:
    """The parts, which share one registry."""

    registry: Registry
    launcher: OwnLauncher
    inspector: Inspector
    registrar: Registrar
    refresher: Refresher
    rechecker: Rechecker
    sources: SourceKeeper
    relocator: Relocator
    scripts: ScriptReading
    pauses: StopPauses
    automations: HostAutomations


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentNeeds:
    """What the parts are made of. `worker_name` is this host's name; `runs`: those under way, whose trees stay."""

    api: PrefectApi
    config: ConfigInForce
    link: SpawnerLink
    journal: Journal
    environments: Environments
    access: Callable[[], ApiAccess]
    calls: BoundedCalls
    paths: Paths
    worker_name: Callable[[], str]
    runs: Callable[[], Iterable[RunRecord]]
    feed: RecordFeed
    wakes: Wakes
    problems: Problems
    ambient: Ambient


def build_deployments(needs: DeploymentNeeds) -> DeploymentParts:
    """Build the parts."""
    registry = Registry()
    api, journal, calls, wakes, ambient = needs.api, needs.journal, needs.calls, needs.wakes, needs.ambient
    sources = build_sources(
        api=api,
        link=needs.link,
        environments=needs.environments,
        calls=calls,
        paths=needs.paths,
        in_use=lambda: _list_trees(registry, needs.runs()),
        problems=needs.problems,
        ambient=ambient,
    )
    inspector = _build_inspector(needs, registry)
    registrar = Registrar(
        api=api,
        inspector=inspector,
        journal=journal,
        registry=registry,
        url=api.url,
        ambient=ambient,
        wakes=wakes,
        problems=needs.problems,
    )
    pauses = StopPauses(
        api=api, journal=journal, registry=registry, settled=registrar.settled, wakes=wakes, ambient=ambient
    )
    recorder = ScriptRecorder(link=needs.link, environments=needs.environments, work_dir=work_dir(needs.paths))
    return DeploymentParts(
        registry=registry,
        launcher=_build_launcher(needs, registry, sources),
        inspector=inspector,
        registrar=registrar,
        refresher=Refresher(
            api=api, registry=registry, registrar=registrar, feed=needs.feed, wakes=wakes, ambient=ambient
        ),
        rechecker=Rechecker(registry=registry, inspector=inspector, registrar=registrar, ambient=ambient),
        sources=sources,
        relocator=Relocator(sources=sources, registry=registry, registrar=registrar, ambient=ambient),
        scripts=ScriptReading(record=recorder.record, calls=calls, ambient=ambient),
        pauses=pauses,
        automations=HostAutomations(
            api=api, config=needs.config, journal=journal, problems=needs.problems, ambient=ambient
        ),
    )


def _build_inspector(needs: DeploymentNeeds, registry: Registry) -> Inspector:
    return Inspector(
        link=needs.link,
        journal=needs.journal,
        registry=registry,
        environments=needs.environments,
        access=needs.access,
        calls=needs.calls,
        work_dir=work_dir(needs.paths),
        at_once=max(_INSPECTIONS_MIN, min(os.cpu_count() or 1, _INSPECTIONS_MAX)),
    )


def _build_launcher(needs: DeploymentNeeds, registry: Registry, sources: SourceKeeper) -> OwnLauncher:
    code, output_dir = RunCode(sources=sources), runs_dir(needs.paths)
    flows = FlowLauncher(
        registry=registry,
        code=code,
        access=needs.access,
        output_dir=output_dir,
        environments=needs.environments,
        worker_name=needs.worker_name,
    )
    commands = CommandLauncher(
        api=needs.api,
        registry=registry,
        code=code,
        link=needs.link,
        environments=needs.environments,
        calls=needs.calls,
        output_dir=output_dir,
    )
    return OwnLauncher(flows=flows, commands=commands, of=registry.by_id)


def _list_trees(registry: Registry, runs: Iterable[RunRecord]) -> list[str]:
    """List the directories of the trees that deployments and runs under way have."""
    of_runs = [record.source.get("directory") for record in runs if record.source is not None]
    of_deployments = [one.deployment.tree.directory for one in registry.entries() if one.deployment.tree is not None]
    return [*of_deployments, *(directory for directory in of_runs if directory is not None)]
