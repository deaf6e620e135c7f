"""upgrading.py: a spawner of another version is replaced once no run needs it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from runnerd import __version__
from runnerd.processes.upgrading import run_spawner_upgrade
from tests.kits.engine import fake_engine, start
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.fakes.fake_spawner import FakeSpawner


@pytest.mark.parametrize(("successor", "versions"), [(__version__, [__version__]), ("0.0.1", ["0.0.1"])])
async def test_a_spawner_of_another_version_makes_room_once_it_is_idle(
    tmp_path: Path, successor: str, versions: list[str]
) -> None:
    """And only once: what comes back as it was is what is installed there."""
    spawner, prefect = FakeSpawner(), FakePrefect(major=3)
    new = replace(spawner.hello, version=successor)
    spawner.hello, spawner.successor = replace(spawner.hello, version="0.0.1"), new
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner) as (engine, _):
        run_id = await start(engine, engine.deploy("nightly"))
        keeping = asyncio.create_task(run_spawner_upgrade(link=engine.link, log=engine.ambient.log))
        await asyncio.sleep(100)
        assert spawner.retired == 0
        spawner.exit(run_id, code=0)
        await engine.until(lambda: engine.phase(run_id) != "running")
        await asyncio.sleep(100)
        assert spawner.retired == 1
        assert engine.link.hello is not None and [engine.link.hello.version] == versions
        keeping.cancel()
