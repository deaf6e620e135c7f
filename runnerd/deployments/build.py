"""Builds the parts that inspect, register, refresh and recheck this host's own deployments."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from runnerd.config.in_force import ConfigInForce
from runnerd.core.problems import Problems
from runnerd.core.record_feed import RecordFeed
from runnerd.core.wakes import Wakes
from runnerd.deployments.host_automations import HostAutomations
from runnerd.deployments.inspector import Inspector
from runnerd.deployments.rechecking import Rechecker
from runnerd.deployments.refresher import Refresher
from runnerd.deployments.registrar import Registrar
from runnerd.deployments.registry import Registry
from runnerd.deployments.stop_pauses import StopPauses
from runnerd.files.bounded_calls import BoundedCalls
from runnerd.journal.journal import Journal
from runnerd.launch.environment import Environments
from runnerd.launch.spec import ApiAccess
from runnerd.prefect_api.client import PrefectApi
from runnerd.processes.link import SpawnerLink
from runnerd.system.ambient import Ambient

_INSPECTIONS_MIN, _INSPECTIONS_MAX = 2, 4  # processes at once; each is an import of prefect


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentParts:
    """The parts, which share one registry."""

    registry: Registry
    inspector: Inspector
    registrar: Registrar
    refresher: Refresher
    rechecker: Rechecker
    pauses: StopPauses
    automations: HostAutomations


def build_deployments(
    *,
    api: PrefectApi,
    config: ConfigInForce,
    link: SpawnerLink,
    journal: Journal,
    environments: Environments,
    access: Callable[[], ApiAccess],
    calls: BoundedCalls,
    work_dir: str,
    feed: RecordFeed,
    wakes: Wakes,
    problems: Problems,
    ambient: Ambient,
) -> DeploymentParts:
    """Build the parts; the result files of inspections are in `work_dir` until they are read."""
    registry = Registry()
    inspector = Inspector(
        link=link,
        journal=journal,
        registry=registry,
        environments=environments,
        access=access,
        calls=calls,
        work_dir=work_dir,
        at_once=max(_INSPECTIONS_MIN, min(os.cpu_count() or 1, _INSPECTIONS_MAX)),
    )
    registrar = Registrar(
        api=api,
        inspector=inspector,
        journal=journal,
        registry=registry,
        url=api.url,
        ambient=ambient,
        wakes=wakes,
        problems=problems,
    )
    return DeploymentParts(
        registry=registry,
        inspector=inspector,
        registrar=registrar,
        refresher=Refresher(api=api, registry=registry, registrar=registrar, feed=feed, wakes=wakes, ambient=ambient),
        rechecker=Rechecker(registry=registry, inspector=inspector, registrar=registrar, ambient=ambient),
        pauses=StopPauses(
            api=api, journal=journal, registry=registry, settled=registrar.settled, wakes=wakes, ambient=ambient
        ),
        automations=HostAutomations(api=api, config=config, journal=journal, problems=problems, ambient=ambient),
    )
