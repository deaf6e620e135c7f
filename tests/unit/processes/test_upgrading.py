"""upgrading.py: a spawner of another version is replaced once no run needs it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runnerd import __version__
from runnerd.processes.upgrading import Spares, SpawnerUpgrade, WantedSpawner
from runnerd.spawner.build_id import read_build_id
from runnerd.spawner.child.users import AllowedUsers
from tests.kits.engine import Engine, fake_engine, start
from tests.kits.engine_parts import NoSpares
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.fakes.fake_spawner import FakeSpawner
from tests.kits.warm_host import warm_host

OURS, OLD = "5eed0001", "01d00001"
LIST = AllowedUsers("etl", root=True, owner=7)
WANTED = WantedSpawner(version=__version__, build=OURS, users=LIST)
DIFFERENT = {
    "version": {"version": "0.0.1"},
    "build": {"build": OLD},
    "no build": {"build": None},
    "users": {"users": AllowedUsers("etl,root", root=True, owner=7)},
}


def upgrade_of(engine: Engine, spares: Spares | None = None) -> SpawnerUpgrade:
    return SpawnerUpgrade(
        link=engine.link,
        wanted=WANTED,
        server=None,
        spares=spares or NoSpares(),
        has_runs=lambda: bool(engine.supervisor.records()),
        log=engine.ambient.log,
    )


@pytest.mark.parametrize("successor", ["wanted", "the same again"])
@pytest.mark.parametrize("differs", DIFFERENT.values(), ids=list(DIFFERENT))
async def test_a_spawner_that_differs_makes_room_once_it_is_idle(
    tmp_path: Path, differs: dict[str, Any], successor: str
) -> None:
    """And only once: what comes back as it was is what is installed there."""
    spawner, prefect = FakeSpawner(), FakePrefect(major=3)
    wanted = replace(spawner.hello, build=OURS, users=LIST)
    spawner.hello = replace(wanted, **differs)
    spawner.successor = wanted if successor == "wanted" else spawner.hello
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        run_id = await start(engine, engine.deploy("nightly"))
        keeping = asyncio.create_task(upgrade_of(engine).run())
        await asyncio.sleep(100)
        assert spawner.retired == 0
        spawner.exit(run_id, code=0)
        await engine.until(lambda: engine.phase(run_id) != "running")
        await asyncio.sleep(100)
        assert spawner.retired == 1
        assert engine.link.hello == spawner.successor
        keeping.cancel()


async def test_a_spawner_that_is_as_wanted_stays(tmp_path: Path) -> None:
    spawner = FakeSpawner()
    spawner.hello = replace(spawner.hello, build=OURS, users=AllowedUsers("etl", root=True, owner=None))
    async with fake_engine(tmp_path, spawner=spawner) as (engine, _):
        keeping = asyncio.create_task(upgrade_of(engine).run())
        await asyncio.sleep(100)
        assert spawner.retired == 0
        keeping.cancel()


def test_the_build_is_that_of_the_code(tmp_path: Path) -> None:
    package = tmp_path / "spawner"
    (package / "runs").mkdir(parents=True)
    assert read_build_id(str(package)) is None, "there is no code"
    (package / "a.py").write_text("one")
    (package / "runs" / "b.py").write_text("two")
    first = read_build_id(str(package))
    (package / "runs" / "b.pyc").write_text("no source")
    assert read_build_id(str(package)) == first is not None
    (package / "runs" / "b.py").write_text("too")
    second = read_build_id(str(package))
    (package / "runs" / "b.py").rename(package / "runs" / "c.py")
    assert len({first, second, read_build_id(str(package))}) == 3
    assert read_build_id() == read_build_id() is not None


async def test_warm_interpreters_keep_no_spawner_and_runs_keep_both(tmp_path: Path) -> None:
    spawner = FakeSpawner()
    async with warm_host(tmp_path, spawner=spawner) as host:
        run = await host.start()
        spawner.successor = replace(spawner.hello, build=OURS, users=LIST)
        spawner.hello = replace(spawner.successor, build=OLD)
        spawner.lose()  # and its hello is read again
        await asyncio.sleep(5)
        upgrading = asyncio.create_task(upgrade_of(host.engine, host.table).run())
        await asyncio.sleep(100)
        assert (spawner.retired, len(host.live())) == (0, 1)
        spawner.exit(run.key)
        await asyncio.sleep(100)
        assert (spawner.retired, host.live()) == (1, [])
        assert await host.starts(1) == ["warm"]
        upgrading.cancel()
