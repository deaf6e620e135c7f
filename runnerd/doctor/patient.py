"""The daemon as its doctor sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from runnerd.journal import Journal
from runnerd.launcher import FlowLauncher
from runnerd.link import SpawnerLink
from runnerd.model import Config, Problem, RunSettings
from runnerd.paths import Paths
from runnerd.prefect_api.client import PrefectApi
from runnerd.pulse import Pulse
from runnerd.registry import Registry
from runnerd.systemd import Systemd
from runnerd.workpools.table import PoolTable, Served, Service


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Something whose flows run here: a deployment, or a work pool."""

    name: str
    run: RunSettings
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """What is looked at. `problems` are those of the configuration, `embedded` that of our own server, if any."""

    url: str
    api: PrefectApi
    config: Callable[[], Config]
    problems: Callable[[], list[Problem]]
    embedded: Callable[[], str | None]
    registry: Registry
    pools: PoolTable
    pool_problems: Callable[[], list[tuple[Served, str]]]
    launcher: FlowLauncher
    journal: Journal
    link: SpawnerLink
    pulse: Pulse
    systemd: Systemd
    paths: Paths
    environ: Mapping[str, str]

    def sources(self) -> list[Source]:
        """Whatever has flows that this daemon starts."""
        own = [Source(name=e.full_name, run=e.deployment.run, problem=e.problem) for e in self.registry.entries()]
        pools = [one for one in self.pools.entries() if one.service is not Service.OTHER]
        return own + [Source(name=f"pool {one.name}", run=one.settings.run) for one in pools]
