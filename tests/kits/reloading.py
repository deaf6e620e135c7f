"""A Reloader over real files, a registrar and a keeper of pools, all in front of one FakePrefect."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from runnerd.config import load
from runnerd.config.in_force import ConfigInForce
from runnerd.config.script_entries import enter_scripts
from runnerd.core.place import Json
from runnerd.core.problems import Problems
from runnerd.core.recording import Recorded
from runnerd.core.settings import ScriptSettings
from runnerd.core.wakes import Wakes
from runnerd.daemon.reloading import Reloader
from runnerd.daemon.served_scripts import ServedScripts
from runnerd.daemon.settling import Settling
from runnerd.deployments.script_reading import ScriptReading
from runnerd.files.bounded_calls import BoundedCalls
from runnerd.launch.api_access import credentials_reader
from runnerd.launch.credentials_in_force import CredentialsInForce
from runnerd.prefect_api.client import PrefectApi
from tests.kits.config import DEFAULTS, ConfigDir
from tests.kits.engine import an_ambient
from tests.kits.nouns import NOON, UnclosableClient
from tests.kits.pools import Keeping, keeping
from tests.kits.registrar import Host, a_host
from tests.kits.sources import no_sources

ONE = "deployments: [{name: one, entrypoint: 'flows/etl.py:nightly'}]\n"


@dataclass
class FakeScripts:
    """What scripts serve, by their paths, instead of running them; `read` are those that were read, in order."""

    outcomes: dict[str, Recorded] = field(default_factory=dict)
    read: list[str] = field(default_factory=list)
    hanging: set[str] = field(default_factory=set)

    async def record(self, script: ScriptSettings) -> Recorded:
        self.read.append(script.path)
        while script.path in self.hanging:
            await asyncio.sleep(1)
        return self.outcomes[script.path]


def _clock() -> float:
    return asyncio.get_running_loop().time()


@dataclass
class Reloads:
    """A configuration directory in force. Its files start with one drop-in that asks for the deployment `one`."""

    files: ConfigDir
    host: Host
    config: ConfigInForce
    reloader: Reloader
    wakes: Wakes
    api: PrefectApi  # with the credentials of the files
    pools: Keeping
    problems: Problems
    credentials: CredentialsInForce
    scripts: FakeScripts

    async def reload(self) -> Json:
        return await self.reloader.reload()

    def names(self) -> list[str]:
        return [entry.deployment.name for entry in self.host.registry.entries()]


@asynccontextmanager
async def reloads(folder: Path, **changes: Json) -> AsyncIterator[Reloads]:
    files = ConfigDir(folder / "etc")
    files.write("conf.d/10.yaml", ONE)
    async with a_host(folder, **changes) as host, keeping(prefect=host.prefect) as pools:
        config, wakes, problems = ConfigInForce(files.load()), Wakes(), Problems()
        credentials = CredentialsInForce(
            read=credentials_reader(config, environ={}, directory=None),
            config=config,
            calls=BoundedCalls(),
            problems=problems,
        )
        api = PrefectApi(
            url=config.settings().api.url,
            credentials=credentials.known,
            read_again=credentials.read,
            headers={},
            timeout_s=60,
            now=lambda: NOON,
            client=UnclosableClient(transport=host.prefect.transport(), verify=False),
        )
        scripts = FakeScripts()
        reading = ScriptReading(
            record=scripts.record, calls=BoundedCalls(), ambient=an_ambient(host.lines, now=lambda: NOON, clock=_clock)
        )
        enter = partial(enter_scripts, directory=str(files.etc), defaults=DEFAULTS)
        served = ServedScripts(reading=reading, enter=enter)
        reloader = Reloader(
            config=config,
            read=lambda last_good: load(str(files.etc), defaults=DEFAULTS, last_good=last_good),
            scripts=served,
            journal=host.journal,
            registrar=host.registrar,
            sources=no_sources(),
            pools=pools.table,
            served=pools.keeper,
            credentials=credentials,
            api=api,
            settling=Settling(api=host.api, registrar=host.registrar, pools=pools.keeper, scripts=served),
            wakes=wakes,
            log=host.registrar._log,
        )
        assert reloader.begin().added == ("one",)
        await host.registrar.settled.wait()
        loops = [asyncio.create_task(one) for one in (reading.run(), reloader.run_scripts())]
        yield Reloads(files, host, config, reloader, wakes, api, pools, problems, credentials, scripts)
        assert not any(one.done() for one in loops)
        for one in loops:
            one.cancel()
