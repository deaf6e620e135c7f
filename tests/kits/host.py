"""A DaemonHost over an engine between two fakes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from runnerd.control.backend.asking import Ask
from runnerd.control.backend.host import DaemonHost, Feed
from runnerd.control.backend.pools import PoolsBackend
from runnerd.control.contract import Host, Peer
from runnerd.core.place import Place, Problem
from runnerd.core.settings import Config
from runnerd.deployments.refresher import Refresher
from runnerd.deployments.registrar import Registrar
from runnerd.prefect_api.backoff import Backoff
from tests.kits.engine import Engine, fake_engine, start
from tests.kits.fakes.fake_spawner import FakeSpawner
from tests.kits.nouns import NOON, URL, Json
from tests.kits.registrar import FakeInspector

PEER = Peer(uid=0, gid=0, pid=1)
_IS_A_HOST: type[Host] = DaemonHost


@dataclass
class Daemon:
    """A DaemonHost over an engine; `reloads` counts, `problems` are shown."""

    host: DaemonHost
    engine: Engine
    spawner: FakeSpawner
    feed: Feed
    reloads: int = 0

    async def start(self, deployment: str = "nightly", **more: object) -> str:
        return await start(self.engine, self.engine.deploy(deployment), **more)

    def id_of(self, name: str) -> str:
        (found,) = self.host.find_deployments(name)
        return str(found["id"])


@asynccontextmanager
async def daemon(folder: Path, **changes: Json) -> AsyncIterator[Daemon]:
    async with fake_engine(folder, **changes) as (engine, spawner):
        feed = Feed()
        engine.heard.append(feed.tell)
        backoff = lambda: Backoff(first_s=0.5, uniform=lambda: 1.0)  # noqa: E731
        registrar = Registrar(
            api=engine.api,
            inspector=FakeInspector(),  # type: ignore[arg-type]
            journal=engine.journal,
            registry=engine.registry,
            url=URL,
            log=engine.tools.log,
            pulse=engine.pulse,
            backoff=backoff,
            registered=lambda: None,
        )
        made: Daemon

        async def examine() -> Json:
            return {"ok": True, "checks": []}

        async def reload() -> Json:
            made.reloads += 1
            return {"ok": True}

        ask = Ask(backoff=backoff)
        host = DaemonHost(
            url=URL,
            api=engine.api,
            supervisor=engine.supervisor,
            poller=engine.poller,
            registry=engine.registry,
            refresher=Refresher(
                api=engine.api, registry=engine.registry, registrar=registrar, pulse=engine.pulse, now=engine.now
            ),
            journal=engine.journal,
            link=engine.link,
            drain=engine.drain,
            pulse=engine.pulse,
            feed=feed,
            config=lambda: Config(settings=engine.settings),
            reload=reload,
            served=lambda records: [],
            open_pools=lambda: {one.name for one in engine.pools.entries() if one.open},
            problems=lambda: [Problem(message="mend me", place=Place("f", 1, 2))],
            doctor=examine,
            ask=ask,
            pools=PoolsBackend(api=engine.api, ask=ask, now=engine.now, served=frozenset),
            started_at=NOON,
        )
        made = Daemon(host, engine, spawner, feed)
        yield made
