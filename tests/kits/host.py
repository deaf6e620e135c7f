"""A DaemonHost over an engine between two fakes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from runnerd.control.backend.api_calls import ApiCaller
from runnerd.control.backend.build import build_host
from runnerd.control.backend.elsewhere import RunsElsewhere
from runnerd.control.backend.host import DaemonHost
from runnerd.control.backend.runs import RunsBackend
from runnerd.control.backend.waiting import WaitReasons
from runnerd.control.contract import Host, Peer
from runnerd.core.backoff import Backoff
from runnerd.core.place import Place, Problem
from runnerd.files.bounded_calls import BoundedCalls
from runnerd.output.output_file import OutputReader
from runnerd.system.usage import Leader, Measured, measure_usage
from tests.kits.engine import Engine, fake_engine, start
from tests.kits.fakes.fake_spawner import FakeSpawner
from tests.kits.nouns import NOON, Json
from tests.kits.pools import a_keeper
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
    folder: Path, *, measure: Callable[[Sequence[Leader]], Measured] = measure_usage, **changes: Json
) -> AsyncIterator[Daemon]:
    async with fake_engine(folder, **changes) as (engine, spawner):
        made: Daemon

        async def examine() -> Json:
            return {"ok": True, "checks": []}

        async def reload(*, inspect: bool) -> Json:
            made.reloads += 1
            return {"ok": True}

        engine.problems.register(lambda: [Problem(message="mend me", place=Place("f", 1, 2))])
        backoff = lambda: Backoff(first_s=0.5, uniform=lambda: 1.0)  # noqa: E731
        ambient = replace(engine.ambient, now=lambda: NOON, backoff=backoff)
        call_api = ApiCaller(ambient=ambient)
        waits = WaitReasons(
            api=engine.api,
            supervisor=engine.supervisor,
            poller=engine.poller,
            blocked=engine.blocked,
            registry=engine.registry,
            now=engine.ambient.now,
        )
        runs = RunsBackend(
            api=engine.api,
            waits=waits,
            call_api=call_api,
            elsewhere=RunsElsewhere(
                api=engine.api,
                call_api=call_api,
                registry=engine.registry,
                pools=engine.pools,
                poller=engine.poller,
                now=engine.ambient.now,
            ),
            supervisor=engine.supervisor,
            poller=engine.poller,
            registry=engine.registry,
            journal=engine.journal,
            link=engine.link,
            feed=engine.feed,
            output=OutputReader(calls=BoundedCalls()),
            ambient=ambient,
            measure=measure,
        )
        host = build_host(
            api=engine.api,
            config=engine.config,
            problems=engine.problems,
            supervisor=engine.supervisor,
            drain=engine.drain,
            poller=engine.poller,
            registry=engine.registry,
            runs=runs,
            pools=a_keeper(engine),
            served=frozenset,
            events=engine.events,
            warm=a_warm_table(engine),
            notices=engine.notices.queue,
            journal=engine.journal,
            link=engine.link,
            wakes=engine.wakes,
            call_api=call_api,
            ambient=ambient,
            examine=examine,
            service=lambda: SERVICE,
            reload=reload,
        )
        made = Daemon(host, engine, spawner, waits)
        yield made
