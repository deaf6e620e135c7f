"""A DaemonHost over an engine between two fakes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from runnerd.control.backend.api_calls import ApiCaller
from runnerd.control.backend.deployments import DeploymentsBackend
from runnerd.control.backend.health import Health
from runnerd.control.backend.host import DaemonHost
from runnerd.control.backend.metrics import Metrics
from runnerd.control.backend.pools import PoolsBackend
from runnerd.control.backend.runs import RunsBackend
from runnerd.control.backend.status import Status
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

SERVICE = {"directory": "/etc/runnerd", "api_url": None, "flow_user": "flow", "users": None}
PEER = Peer(uid=0, gid=0, pid=1)
_IS_A_HOST: type[Host] = DaemonHost


@dataclass
class Daemon:
    """A DaemonHost over an engine; `reloads` counts."""

    host: DaemonHost
    engine: Engine
    spawner: FakeSpawner
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
        keeper = a_keeper(engine)
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
        deployments = DeploymentsBackend(
            api=engine.api,
            call_api=call_api,
            config=engine.config,
            registry=engine.registry,
            supervisor=engine.supervisor,
            wakes=engine.wakes,
        )
        host = DaemonHost(
            status=Status(
                api=engine.api,
                config=engine.config,
                problems=engine.problems,
                drain=engine.drain,
                runs=runs,
                deployments=deployments,
                pools=keeper,
                service=lambda: SERVICE,
                ambient=ambient,
            ),
            health=Health(
                api=engine.api, link=engine.link, journal=engine.journal, pulse=engine.pulse, examine=examine
            ),
            metrics=Metrics(
                api=engine.api,
                config=engine.config,
                poller=engine.poller,
                pools=keeper,
                registry=engine.registry,
                supervisor=engine.supervisor,
            ),
            runs=runs,
            deployments=deployments,
            pools=PoolsBackend(api=engine.api, call_api=call_api, now=engine.now, served=frozenset),
            drain=engine.drain,
            reload=reload,
        )
        made = Daemon(host, engine, spawner)
        yield made
