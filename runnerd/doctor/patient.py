"""The daemon as its doctor sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from runnerd.journal import Journal
from runnerd.launcher import FlowLauncher
from runnerd.link import SpawnerLink
from runnerd.model import Config, Problem
from runnerd.paths import Paths
from runnerd.prefect_api.client import PrefectApi
from runnerd.pulse import Pulse
from runnerd.registry import Registry
from runnerd.systemd import Systemd


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """What is looked at. `problems` are those of the configuration, `embedded` that of our own server, if any."""

    url: str
    api: PrefectApi
    config: Callable[[], Config]
    problems: Callable[[], list[Problem]]
    embedded: Callable[[], str | None]
    registry: Registry
    launcher: FlowLauncher
    journal: Journal
    link: SpawnerLink
    pulse: Pulse
    systemd: Systemd
    paths: Paths
    environ: Mapping[str, str]
