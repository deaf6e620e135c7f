"""Holds the parts of the daemon that the doctor checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from runnerd.config.in_force import ConfigInForce
from runnerd.core.place import Place, Problem
from runnerd.core.settings import RunSettings
from runnerd.deployments.registry import Registry
from runnerd.journal.journal import Journal
from runnerd.launch.environment import Environments
from runnerd.pools.keeper import PoolKeeper
from runnerd.pools.table import PoolService
from runnerd.prefect_api.client import PrefectApi
from runnerd.processes.link import SpawnerLink
from runnerd.processes.upgrading import WantedSpawner
from runnerd.runs.abandoned import AbandonedRuns
from runnerd.runs.blocked import Blocked
from runnerd.system.paths import Paths
from runnerd.system.systemd import Systemd
from runnerd.system.watchdog import Pulse


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A deployment or a work pool whose flows this daemon starts, and its run settings."""

    name: str
    run: RunSettings
    problem: str | None = None
    place: Place | None = None
    imports: bool = True  # its runs import a flow, with Prefect, by the interpreter of `run`

    @property
    def where(self) -> str:
        """The name, with the place of its definition."""
        return f"{self.name} ({self.place})" if self.place else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The daemon's parts, as input of the checks."""

    api: PrefectApi
    config: ConfigInForce
    embedded: Callable[[], str | None]  # the problem of the embedded server; None without one
    registry: Registry
    held_drops: Callable[[], Sequence[Problem]]  # why deployments that left the files cannot be dropped yet
    warm: Callable[[], Sequence[Problem]]  # why warm interpreters cannot be started
    notices: Callable[[], Sequence[Problem]]  # why notices cannot be sent
    pools: PoolKeeper
    abandoned: AbandonedRuns
    deadlocked: Callable[[], Sequence[Blocked]]  # runs whose parents hold every slot for which they wait
    environments: Environments
    journal: Journal
    link: SpawnerLink
    wanted_spawner: WantedSpawner
    pulse: Pulse
    systemd: Systemd
    paths: Paths
    environ: Mapping[str, str]

    def sources(self) -> list[Source]:
        """List the deployments and the pools whose runs this daemon starts."""
        own = [
            Source(
                name=e.full_name,
                run=e.deployment.run,
                problem=e.problem,
                place=e.deployment.place,
                imports=e.deployment.command is None,
            )
            for e in self.registry.entries()
        ]
        pools = [one for one in self.pools.entries() if one.service is not PoolService.OTHER]
        return own + [Source(name=f"pool {one.name}", run=one.settings.run, place=one.settings.place) for one in pools]
