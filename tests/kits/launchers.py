"""The real launchers, of own deployments, pools and guests, around an engine between fakes."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from runnerd.core.backoff import Backoff
from runnerd.core.machine import RunRecord
from runnerd.core.process import LaunchSpec
from runnerd.core.settings import HostRunSettings, RunSettings
from runnerd.deployments.launching import FlowLauncher
from runnerd.deployments.sources.run_code import RunCode
from runnerd.files.bounded_calls import BoundedCalls, Unanswered
from runnerd.launch.environment import Environments
from runnerd.launch.guests import GuestLauncher
from runnerd.launch.prepared import Launchers, Prepared
from runnerd.launch.spec import ApiAccess
from runnerd.pools.launching import PoolLauncher
from runnerd.pools.resolving import JobResolver
from tests.kits.channels import HOST
from tests.kits.engine import Engine
from tests.kits.engine_parts import start_cold
from tests.kits.nouns import URL, Json
from tests.kits.sources import no_sources
from tests.kits.templates import AskedHere

KEY = "secret-key"  # of the API


def real_launchers(engine: Engine) -> Launchers:
    loop: Any = asyncio.get_running_loop()
    access = ApiAccess(url=URL, environment={"PREFECT_API_KEY": KEY})
    environments = Environments(environ={"LANG": "C.UTF-8", "OF_THE_DAEMON": "hush"}, calls=BoundedCalls())
    own = FlowLauncher(
        registry=engine.registry,
        code=RunCode(sources=no_sources()),
        access=lambda: access,
        output_dir="/out",
        environments=environments,
        worker_name=lambda: HOST,
    )
    pools = PoolLauncher(
        api=engine.api,
        table=engine.pools,
        jobs=JobResolver(side=AskedHere(), clock=loop.time),
        environments=environments,
        access=lambda: access,
        output_dir="/out",
        worker_name=lambda: HOST,
        backoff=lambda: Backoff(first_s=0.1, cap_s=5.0, uniform=random.Random(1).random),
    )
    guests = GuestLauncher(config=engine.config, access=lambda: access, output_dir="/out", environments=environments)
    return Launchers(own=own, pools=pools, guests=guests, choose=start_cold)


class LateLauncher:
    """The launcher of an engine that is made before it: an engine takes its launcher when it is made itself."""

    def __init__(self) -> None:
        self.real: Launchers | None = None

    async def prepare(self, record: RunRecord) -> Prepared:
        assert self.real is not None
        return await self.real.prepare(record)

    async def prepare_hooks(self, record: RunRecord) -> LaunchSpec | str | Unanswered:
        assert self.real is not None
        return await self.real.prepare_hooks(record)


def set_host_run(engine: Engine, *, scratch: bool = True, **run: Json) -> None:
    """Have the host's own run: be this."""
    settings: Mapping[str, Json] = {"python": sys.executable, "working_directory": "/etc/runnerd", **run}
    host_run = HostRunSettings(run=RunSettings(**settings), scratch=scratch)
    engine.config.replace(replace(engine.config.current, host_run=host_run))
