"""Warm interpreters between a FakeSpawner and a folder that looks like a virtual environment."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from runnerd.core.machine import RunRecord
from runnerd.core.process import LaunchSpec
from runnerd.core.settings import StartKind, WarmSettings
from runnerd.files.bounded_calls import BoundedCalls
from runnerd.launch.prepared import Prepared, Upcoming, WarmWish
from runnerd.processes.protocol import Record
from runnerd.warm.keeper import WarmKeeper
from runnerd.warm.plan import WARM_PREFIX
from runnerd.warm.table import WarmTable
from tests.kits.engine import Engine, fake_engine
from tests.kits.fakes.fake_spawner import FakeSpawner
from tests.kits.nouns import Json


def a_venv(folder: Path) -> Path:
    """Make what a virtual environment with Prefect looks like from outside; its interpreter."""
    packages = folder / "lib" / "python3.11" / "site-packages"
    (packages / "prefect-3.9.1.dist-info").mkdir(parents=True)
    (packages / "prefect-3.9.1.dist-info" / "RECORD").write_text("prefect/__init__.py,,\n")
    (packages / "a.pth").write_text(f"{folder / 'linked'}\n")
    (folder / "linked").mkdir()
    (folder / "bin").mkdir()
    (folder / "bin" / "python").write_text("#!/bin/sh\n")
    (folder / "pyvenv.cfg").write_text("home = /usr/bin\n")
    return folder / "bin" / "python"


def a_spec(python: Path, run_id: str = "", **changes: Json) -> LaunchSpec:
    """The launch spec of a run that can be forked."""
    environment = {"PATH": "/bin", "HOME": "/home/etl", "PREFECT_API_KEY": "hush", **changes.pop("environment", {})}
    defaults: dict[str, Json] = {
        "argv": (str(python), "-m", "prefect.engine"),
        "working_directory": "/srv/flows",
        "output": "/dev/null",
        "user": "etl",
    }
    run_id = run_id or str(uuid.uuid4())
    return LaunchSpec(key=run_id, attempt=1, environment=environment, **{**defaults, **changes})


def a_wish(start: StartKind = "warm", **changes: Json) -> WarmWish:
    return WarmWish(**{"start": start, "owner": "d-1", "prefect_version": "3.9.1", **changes})


def a_warm_table(engine: Engine, *, shortage: Callable[[], str | None] = lambda: None) -> WarmTable:
    """A table that learns of the engine's runs."""
    table = WarmTable(
        link=engine.link,
        config=engine.config,
        calls=BoundedCalls(),
        work_dir="/nonexistent",
        shortage=shortage,
        tasks=engine.tasks,
        ambient=engine.ambient,
    )
    engine.feed.subscribe(table.note_record)
    engine.problems.register(table.problems)
    return table


@dataclass
class ForkableLauncher:
    """Makes launch specs of runs that can be forked, as `wish` says."""

    python: Path
    wish: WarmWish = field(default_factory=a_wish)
    table: WarmTable | None = None

    async def prepare(self, record: RunRecord) -> Prepared:
        assert self.table is not None
        spec = replace(a_spec(self.python, record.id), attempt=record.attempt)
        return await self.table.choose(Prepared(start=spec, user="etl", warm=self.wish))

    async def prepare_hooks(self, _record: RunRecord) -> str:
        return "it has none"


@dataclass
class WarmHost:
    """The table and its keeper; `short` is why the host is short of memory."""

    engine: Engine
    spawner: FakeSpawner
    launcher: ForkableLauncher
    table: WarmTable = field(init=False)
    keeper: WarmKeeper = field(init=False)
    short: str | None = None
    claims: bool = True
    upcoming: list[Upcoming] = field(default_factory=list)

    def __post_init__(self) -> None:
        engine = self.engine
        self.table = self.launcher.table = a_warm_table(engine, shortage=lambda: self.short)
        self.keeper = WarmKeeper(
            table=self.table,
            link=engine.link,
            config=engine.config,
            calls=BoundedCalls(),
            upcoming=lambda: self.upcoming,
            claims=lambda: self.claims,
            shortage=lambda: self.short,
            ambient=engine.ambient,
        )

    @property
    def python(self) -> Path:
        return self.launcher.python

    async def choose(self, wish: WarmWish | None = None, **spec: Json) -> Prepared:
        """What becomes of the start of a run."""
        python = spec.pop("python", self.python)
        return await self.table.choose(Prepared(start=a_spec(python, **spec), warm=wish or a_wish()))

    async def start(self, wish: WarmWish | None = None, **spec: Json) -> Record:
        """Start a run; its record at the spawner."""
        chosen = (await self.choose(wish, **spec)).start
        assert isinstance(chosen, LaunchSpec)
        return await self.engine.link.spawn(chosen)

    async def starts(self, number: int, wish: WarmWish | None = None, **spec: Json) -> list[str]:
        """Start so many runs, one after the other; how each was started."""
        return [(await self.start(wish, **spec)).start for _ in range(number)]

    def due_in(self, seconds: float, wish: WarmWish | None = None, **spec: Json) -> None:
        """Schedule the next run of a deployment."""
        prepared = Prepared(start=a_spec(self.python, **spec), warm=wish or a_wish())

        async def prepare() -> Prepared:
            return prepared

        at = self.engine.now() + timedelta(seconds=seconds)
        owner = prepared.warm.owner if prepared.warm else ""
        self.upcoming = [*(one for one in self.upcoming if one.deployment != owner)]
        self.upcoming.append(Upcoming(deployment=owner, at=at, prepare=prepare))

    def started(self) -> list[LaunchSpec]:
        """Every warm interpreter that was started."""
        return [spec for spec in self.spawner.started if spec.key.startswith(WARM_PREFIX)]

    def live(self) -> list[str]:
        """The keys of those that live."""
        return [key for key in self.spawner.live() if key.startswith(WARM_PREFIX)]

    def states(self) -> list[str]:
        return [one.state for one in self.table.all()]


@asynccontextmanager
async def warm_host(folder: Path, *, spawner: FakeSpawner | None = None, **bounds: Json) -> AsyncIterator[WarmHost]:
    """A host with a virtual environment; `bounds` are of the section warm."""
    launcher = ForkableLauncher(a_venv(folder / "venv"))
    bounded = WarmSettings(**bounds)
    async with fake_engine(folder, spawner=spawner, launcher=lambda _: launcher, warm=bounded) as (engine, fake):
        host = WarmHost(engine, fake, launcher)
        keeping = asyncio.create_task(host.keeper.run())
        try:
            yield host
            assert not keeping.done(), "the loop has ended, and the daemon with it"
        finally:
            keeping.cancel()
            host.table.detach()
