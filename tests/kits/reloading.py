"""A Reloader over real files, a registrar and a keeper of pools, all in front of one FakePrefect."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from runnerd.config import load
from runnerd.config.in_force import ConfigInForce
from runnerd.core.place import Json
from runnerd.core.problems import Problems
from runnerd.core.wakes import Wakes
from runnerd.daemon.reloading import Reloader
from runnerd.daemon.settling import Settling
from runnerd.files.bounded_calls import BoundedCalls
from runnerd.launch.api_access import credentials_reader
from runnerd.launch.credentials_in_force import CredentialsInForce
from runnerd.prefect_api.client import PrefectApi
from tests.kits.config import DEFAULTS, ConfigDir
from tests.kits.nouns import NOON, UnclosableClient
from tests.kits.pools import Keeping, keeping
from tests.kits.registrar import Host, a_host

ONE = "deployments: [{name: one, entrypoint: 'flows/etl.py:nightly'}]\n"


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
        reloader = Reloader(
            config=config,
            read=lambda last_good: load(str(files.etc), defaults=DEFAULTS, last_good=last_good),
            scripts=served,
            journal=host.journal,
            registrar=host.registrar,
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
        yield Reloads(files, host, config, reloader, wakes, api, pools, problems, credentials)
