"""A DaemonHost over an engine between two fakes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from runnerd.control.backend.build import DaemonParts, build_host, build_waits
from runnerd.control.backend.host import DaemonHost
from runnerd.control.backend.waiting import WaitReasons
from runnerd.control.contract import Host, Peer
from runnerd.core.backoff import Backoff
from runnerd.core.place import Place, Problem
from runnerd.files.bounded_calls import BoundedCalls
from runnerd.system.usage import Leader, Measured, measure_usage
from tests.kits.engine import Engine, fake_engine, start
from tests.kits.fakes.fake_spawner import FakeSpawner
from tests.kits.launchers import LateLauncher, real_launchers
from tests.kits.nouns import Json
from tests.kits.pools import a_keeper
from tests.kits.sources import no_sources
from tests.kits.warm_host import a_warm_table

SERVICE = {"directory": "/etc/runnerd", "api_url": None, "flow_user": "flow", "users": None}
PEER = Peer(uid=0, gid=0, pid=1)
_IS_A_HOST: type[Host] = DaemonHost


@dataclass
class Daemon:
    """A DaemonHost over an engine; `reloads` counts."""

    host: DaemonHost
    engine: Engine
    spawner: FakeSpawner
    waits: WaitReasons
    reloads: int = 0

    async def start(self, deployment: str = "nightly", **more: object) -> str:
        return await start(self.engine, self.engine.deploy(deployment), **more)

    def id_of(self, name: str) -> str:
        (found,) = self.host.deployments.find(name)
        return str(found["id"])


@asynccontextmanager
async def daemon(
    folder: Path,
    *,
    measure: Callable[[Sequence[Leader]], Measured] = measure_usage,
    launches: bool = False,
    **changes: Json,
) -> AsyncIterator[Daemon]:
    """`launches`: runs are started by the real launchers, as they are planned in any case."""
    late = LateLauncher()
    if launches:
        changes["launcher"] = lambda _registry: late
    async with fake_engine(folder, **changes) as (engine, spawner):
        made: Daemon
        late.real = launchers = real_launchers(engine)

        async def examine() -> Json:
            return {"ok": True, "checks": []}

        async def reload(*, inspect: bool) -> Json:
            made.reloads += 1
            return {"ok": True}

        engine.problems.register(lambda: [Problem(message="mend me", place=Place("f", 1, 2))])
        backoff = lambda: Backoff(first_s=0.5, uniform=lambda: 1.0)  # noqa: E731
        ambient = replace(engine.ambient, backoff=backoff)
        parts = DaemonParts(
            api=engine.api,
            config=engine.config,
            problems=engine.problems,
            supervisor=engine.supervisor,
            drain=engine.drain,
            poller=engine.poller,
            blocked=engine.blocked,
            registry=engine.registry,
            sources=no_sources(),
            launchers=launchers,
            pools=a_keeper(engine),
            pool_table=engine.pools,
            served=frozenset,
            events=engine.events,
            warm=a_warm_table(engine),
            notices=engine.notices.queue,
            journal=engine.journal,
            link=engine.link,
            feed=engine.feed,
            wakes=engine.wakes,
            calls=BoundedCalls(),
            ambient=ambient,
            examine=examine,
            service=lambda: SERVICE,
            reload=reload,
            measure=measure,
        )
        host, waits = build_host(parts), build_waits(parts)
        made = Daemon(host, engine, spawner, waits)
        yield made
