"""Prefect in miniature: interpreters that have it, wheels for pip, and a worker that does what a file says."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import zipfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from runnerd.core.place import Place
from runnerd.core.prefect import WorkerType, WorkPool, WorkQueue
from runnerd.core.problems import Problems
from runnerd.core.settings import PoolSettings, RunSettings
from runnerd.files.bounded_calls import BoundedCalls
from runnerd.launch.environment import Environments
from runnerd.launch.spec import ApiAccess
from runnerd.pools.table import Served
from runnerd.pools.workers.command import WorkerPlan
from runnerd.pools.workers.worker import PrefectWorker
from runnerd.prefect_api.dialect import server_info
from runnerd.processes.client import SpawnerClient
from runnerd.processes.link import SpawnerLink
from runnerd.processes.long_lived import RestartDelays
from runnerd.system.directories import work_dir
from runnerd.system.paths import Paths
from tests.kits.links import running_link
from tests.kits.nouns import LogLines, log_to
from tests.kits.spawner import LIMIT_S, OWN_USER, SpawnerUnderTest

Json = Any
URL = "http://prefect.test/api"
TINY = WorkerType(type="tiny", package="prefect-tiny", template={})

# Notes how it was started, and says and does what the file `mode` in its HOME wants.
WORKER = """\
import json, os, signal, sys
home = os.environ["HOME"]
def stopped(number, frame):
    print("Worker 'me' stopped!", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, stopped)
with open(os.path.join(home, "started.jsonl"), "a") as file:
    told = {"pid": os.getpid(), "argv": sys.argv[1:], "environment": dict(os.environ), "cwd": os.getcwd()}
    file.write(json.dumps({**told, "python": sys.executable, "uid": os.getuid()}) + "\\n")
mode = ""
if os.path.exists(os.path.join(home, "mode")):
    mode = open(os.path.join(home, "mode")).read()
print("Worker 'me' started!", flush=True)
if mode:
    print(mode, flush=True)
if mode.startswith("Unable"):
    sys.exit(1)
while True:
    signal.pause()
"""


def site(place: Path, *, prefect: str = "3.8.8", package: bool = True) -> Path:
    """A directory of libraries with this Prefect and, if wanted, prefect-tiny."""
    library = place / "prefect"
    (library / "cli").mkdir(parents=True)
    (library / "__init__.py").touch()
    (library / "cli" / "worker.py").write_text("create_pool_if_not_found = True\n" if prefect[0] == "3" else "")
    if prefect[0] == "3":
        (library / "__main__.py").write_text(WORKER)
    else:
        (library / "cli" / "__init__.py").write_text(f"def app(prog_name):\n    exec({WORKER!r}, {{}})\n")
    _distribution(place, "prefect", prefect)
    if package:
        _distribution(place, "prefect_tiny", "1.0")
    return place


def _distribution(place: Path, name: str, version: str) -> Path:
    found = place / f"{name}-{version}.dist-info"
    found.mkdir(parents=True)
    (found / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n")
    (found / "WHEEL").write_text("Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    return found


def wheel(into: Path, name: str, version: str, source: Path) -> None:
    """A wheel of what `source` has of it."""
    into.mkdir(exist_ok=True)
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(into / f"{name}-{version}-py3-none-any.whl", "w") as file:
        paths = [path for top in (name, info) for path in sorted((source / top).rglob("*")) if path.is_file()]
        for path in paths:
            file.write(path, str(path.relative_to(source)))
        record = "".join(f"{path.relative_to(source)},,\n" for path in paths)
        file.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")


class Bench:
    """A host with a spawner; `daemon` is one daemon with a worker of its pool, and the next one when called again."""

    def __init__(self, spawner: SpawnerUnderTest) -> None:
        self.spawner = spawner
        self.home = spawner.home / "user"
        self.home.mkdir()
        places = {name: str(spawner.home / f"its-{name}") for name in ("config", "runtime", "state", "log")}
        self.paths = Paths(**places, credentials=None)
        for path in (places["runtime"], work_dir(self.paths), places["log"]):
            os.makedirs(path)
        self.plain = self.python("plain", None)
        self.environment: dict[str, str] = {}
        self.key = "k-1"
        self.lines = LogLines()

    def python(self, name: str, libraries: Path | None) -> str:
        """An interpreter that has these libraries; -X means nothing to it, but leftovers are found by that path."""
        path = self.spawner.home / name
        also = f'export PYTHONPATH="{libraries}"; ' if libraries is not None else ""
        path.write_text(f'#!/bin/sh\n{also}exec "{sys.executable}" -X of={path} "$@"\n')
        path.chmod(0o755)
        return str(path)

    def full(self, prefect: str = "3.8.8", **more: bool) -> str:
        """An interpreter that has Prefect and what tiny workers need."""
        return self.python(f"python{prefect}", site(self.spawner.home / f"site{prefect}", prefect=prefect, **more))

    def wheels(self, *, prefect: str = "3.8.8") -> None:
        """Let pip find them, and nothing else."""
        source, shelf = site(self.spawner.home / f"wheels{prefect}", prefect=prefect), self.spawner.home / "shelf"
        wheel(shelf, "prefect", prefect, source)
        wheel(shelf, "prefect_tiny", "1.0", source)
        self.environment |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(shelf)}

    def mode(self, text: str) -> None:
        (self.home / "mode").write_text(text)

    def started(self) -> list[dict[str, Json]]:
        """How each worker was started."""
        path = self.home / "started.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def settings(self, python: str, **changes: Json) -> PoolSettings:
        run = changes.pop("run", {})
        environment = {"HOME": str(self.home), **self.environment, **run.pop("environment", {})}
        settings = RunSettings(
            python=python, working_directory=str(self.home), environment=environment, stop_timeout_s=20.0,
            **{"user": OWN_USER, **run},
        )  # fmt: skip
        return PoolSettings(**{"name": "pool", "run": settings, "place": Place("/etc/runnerd/runnerd.yaml"), **changes})

    def plan(self, settings: PoolSettings) -> WorkerPlan:
        """What is made of these settings."""
        return WorkerPlan(
            settings=settings, type="tiny", package="prefect-tiny", server=server_info("3.8.8"), queues=(), name="me",
            environment=settings.run.environment, access=ApiAccess(url=URL, environment={}),
        )  # fmt: skip

    @asynccontextmanager
    async def linked(self) -> AsyncIterator[SpawnerLink]:
        def connect(on_record: Callable[..., None], on_lost: Callable[[], None]) -> SpawnerClient:
            return SpawnerClient(socket_path=self.spawner.socket, on_record=on_record, on_lost=on_lost)

        async def start() -> None: ...

        link = SpawnerLink(make_client=connect, start_spawner=start, problems=Problems(), log=log_to(self.lines))
        async with running_link(link):
            yield link

    @asynccontextmanager
    async def daemon(self, settings: PoolSettings, **wanted: Json) -> AsyncIterator[Worker]:
        """Its going touches nothing that runs."""
        async with self.linked() as link:
            worker = Worker(self, link, settings.name)
            await worker.want(settings, **wanted)
            task = asyncio.create_task(worker.prefect_worker.run())
            try:
                yield worker
                assert not task.done() or task.exception() is None
            finally:
                task.cancel()
                await asyncio.wait([task])


class Worker:
    """The worker of one pool in one daemon."""

    def __init__(self, bench: Bench, link: SpawnerLink, pool: str) -> None:
        def access() -> ApiAccess:
            return ApiAccess(url=URL, environment={"PREFECT_API_KEY": bench.key})

        self.bench = bench
        self.link = link
        self.prefect_worker = PrefectWorker(
            pool=pool,
            link=link,
            environments=Environments(environ={}, calls=BoundedCalls()),
            access=access,
            paths=bench.paths,
            name=lambda: "me",
            log=log_to(bench.lines),
            delays=RestartDelays(first_s=0.05, max_s=0.4, steady_s=30.0),
        )

    async def want(
        self,
        settings: PoolSettings,
        *,
        version: str = "3.8.8",
        kind: WorkerType | None = TINY,
        queues: tuple[str, ...] = (),
        type: str = "tiny",
    ) -> None:
        known = tuple(WorkQueue(id=name, name=name) for name in queues)
        pool = WorkPool(id="p-1", name=settings.name, type=type)
        await self.prefect_worker.want(
            Served(settings=settings, pool=pool, queues=known), kind=kind, server=server_info(version)
        )

    @property
    def document(self) -> dict[str, Json]:
        return self.prefect_worker.document()

    async def until(self, condition: Callable[[dict[str, Json]], object], what: str) -> dict[str, Json]:
        """Its document once that is true of it."""
        loop = asyncio.get_running_loop()
        end = loop.time() + LIMIT_S
        while not condition(self.document):
            assert loop.time() < end, f"waited for {what}; the document is {self.document}"
            await asyncio.sleep(0.02)
        return self.document

    async def runs(self, count: int = 1) -> dict[str, Json]:
        """Once so many of them were started in all, and the latest runs."""
        begun = self.bench.started
        return await self.until(
            lambda document: len(begun()) == count and document["pid"] == begun()[-1]["pid"], f"{count} to be started"
        )

    async def troubled(self, words: str) -> str:
        """Its problem, once it has these words."""
        return str((await self.until(lambda document: words in (document["problem"] or ""), words))["problem"])
