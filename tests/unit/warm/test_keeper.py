"""keeper.py: when interpreters go, and which are started ahead of a schedule."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest

from runnerd.control.fields import WARM_FIELDS
from runnerd.core.process import LaunchSpec
from runnerd.launch.prepared import Prepared, Upcoming
from runnerd.warm.documents import warm_documents
from runnerd.warm.keeper import IMPORTS_MAX_S, ROUND_S
from runnerd.warm.plan import WARM_PREFIX
from tests.kits.fakes.fake_spawner import FakeSpawner
from tests.kits.warm_host import WarmHost, a_venv, a_wish, warm_host

AUTO = a_wish("auto")


async def test_idle_ones_are_ended(tmp_path: Path) -> None:
    async with warm_host(tmp_path, idle_s=60.0) as host:
        await host.start()
        await asyncio.sleep(50)
        await host.start()
        await asyncio.sleep(50)
        assert len(host.live()) == 1
        await asyncio.sleep(10 + ROUND_S)
        assert host.live() == []
        assert host.engine.problems.all() == []


async def test_an_idle_host_starts_nothing(tmp_path: Path) -> None:
    async with warm_host(tmp_path) as host:
        await asyncio.sleep(3600)
        assert host.spawner.started == []


async def test_one_ahead_of_a_scheduled_run(tmp_path: Path) -> None:
    async with warm_host(tmp_path, idle_s=60.0) as host:
        host.due_in(1000)
        await asyncio.sleep(900)
        assert host.started() == []
        await asyncio.sleep(90)  # the run may be claimed
        assert len(host.live()) == 1
        await asyncio.sleep(10)
        assert await host.starts(1) == ["warm"]
        assert len(host.started()) == 1


async def test_it_waits_for_its_run_longer_than_idle(tmp_path: Path) -> None:
    async with warm_host(tmp_path, idle_s=1.0) as host:
        host.due_in(25)
        await asyncio.sleep(24)
        assert len(host.live()) == 1
        await asyncio.sleep(120)
        assert host.live() == [], "a run that does not come is waited for no longer"
        assert len(host.started()) == 1


async def test_auto_warms_ahead_where_a_run_was_shortly_before(tmp_path: Path) -> None:
    async with warm_host(tmp_path, idle_s=600.0) as host:
        host.due_in(300, AUTO)
        await asyncio.sleep(300)
        assert await host.starts(1, AUTO) == ["cold"], "the first one since the daemon has started"
        host.due_in(300, AUTO)
        await asyncio.sleep(300)
        assert len(host.live()) == 1
        assert await host.starts(1, AUTO) == ["warm"]


async def test_auto_warms_nothing_for_a_rare_schedule(tmp_path: Path) -> None:
    async with warm_host(tmp_path, idle_s=600.0) as host:
        for _ in range(4):
            host.due_in(3600, AUTO)
            await asyncio.sleep(3600)
            assert await host.starts(1, AUTO) == ["cold"]
        assert host.started() == []


@pytest.mark.parametrize("start", ["warm", "auto"])
async def test_nothing_ahead_on_a_host_that_drains(tmp_path: Path, start: str) -> None:
    async with warm_host(tmp_path) as host:
        host.claims = False
        host.due_in(100, a_wish("warm" if start == "warm" else "auto"))
        await asyncio.sleep(200)
        assert host.started() == []


async def test_replaced_while_idle_when_its_environment_changes(tmp_path: Path) -> None:
    async with warm_host(tmp_path) as host:
        await host.start()
        os.utime(tmp_path / "venv/lib/python3.11/site-packages/a.pth", (1, 1))
        await asyncio.sleep(60)
        assert host.live() == []


async def test_memory_pressure_ends_them_one_by_one(tmp_path: Path) -> None:
    pythons = [a_venv(tmp_path / name) for name in "ab"]
    async with warm_host(tmp_path) as host:
        for python in pythons:
            await host.start(python=python)
            await asyncio.sleep(1)
        host.short = "too little"
        await asyncio.sleep(ROUND_S)
        assert [one.plan.python for one in host.table.all()] == [str(pythons[1])], "the one used last"
        await asyncio.sleep(ROUND_S)
        assert host.live() == []


async def test_imports_that_never_end(tmp_path: Path) -> None:
    spawner = FakeSpawner()
    spawner.imports_for_ever = True
    async with warm_host(tmp_path, spawner=spawner) as host:
        await host.choose()
        await asyncio.sleep(IMPORTS_MAX_S + 2 * ROUND_S)
        assert host.live() == []
        (problem,) = host.engine.problems.all()
        assert "not ready within 300 s" in problem.message


async def test_what_an_earlier_daemon_left_is_ended(tmp_path: Path) -> None:
    spawner = FakeSpawner()
    async with warm_host(tmp_path, spawner=spawner) as host:
        left = [LaunchSpec(key=f"{WARM_PREFIX}{n}", attempt=1, argv=("x",), environment={}, working_directory="/",
                           output="/o", forks=True) for n in range(2)]  # fmt: skip
        for spec in left:
            await host.engine.link.spawn(spec)
        spawner.exit(left[0].key)
        run = await host.start()
        await asyncio.sleep(3 * ROUND_S)
        assert not {spec.key for spec in left} & {key for key, _ in spawner.records}
        assert set(host.spawner.live()) == {run.key, host.started()[-1].key}


async def test_surplus_ones_after_a_reload(tmp_path: Path) -> None:
    async with warm_host(tmp_path) as host:
        await host.start()
        settings = host.engine.settings
        host.engine.settings = type(settings)(
            name=settings.name, api=settings.api, warm=type(settings.warm)(interpreters=0)
        )
        await asyncio.sleep(ROUND_S + 1)
        assert host.live() == []


async def test_one_odd_deployment_does_not_stop_the_others(tmp_path: Path) -> None:
    async with warm_host(tmp_path) as host:
        host.due_in(20, a_wish(owner="d-2"))
        (odd,) = host.upcoming

        async def fail() -> None:
            raise RuntimeError("odd")

        host.due_in(15, a_wish(owner="d-1"))
        host.upcoming = [type(odd)(deployment="odd", at=odd.at, prepare=fail), *host.upcoming]  # type: ignore[arg-type]
        await asyncio.sleep(30)
        assert len(host.started()) == 1


def shown(host: WarmHost) -> list[tuple[str, str | None, int]]:
    documents = warm_documents(host.table)
    assert all(set(one) == WARM_FIELDS for one in documents)
    return [(one["state"], one["problem"], one["runs"]) for one in documents]


async def test_what_the_status_shows(tmp_path: Path) -> None:
    async with warm_host(tmp_path) as host:
        assert shown(host) == []
        await host.starts(2)
        host.spawner.warm_problem = "pandas has started a thread"
        await host.choose(a_wish(preload=("pandas",)))
        await asyncio.sleep(1)
        assert shown(host) == [("ready", None, 2), ("failed", "pandas has started a thread", 0)]


async def test_a_hand_over_ends_them(tmp_path: Path) -> None:
    async with warm_host(tmp_path) as host:
        await host.start()
        await host.keeper.hand_over()
        assert host.live() == []


async def test_a_hand_over_does_not_wait_for_a_spawner_that_is_away(tmp_path: Path) -> None:
    async with warm_host(tmp_path) as host:
        await host.start()
        host.spawner.down = True
        host.spawner.lose()
        began = host.engine.clock()
        await host.keeper.hand_over()
        assert host.engine.clock() - began < 10
        assert len(host.live()) == 1, "for the next daemon to end"


async def test_many_schedules_are_prepared_few_at_a_time(tmp_path: Path) -> None:
    async with warm_host(tmp_path) as host:
        for number in range(50):
            host.due_in(60, a_wish(owner=f"d-{number}"))
        asked: list[str] = []
        one_of_them = host.upcoming[0]

        def counted(owner: str) -> Upcoming:
            async def prepare() -> Prepared:
                asked.append(owner)
                return await one_of_them.prepare()

            return replace(one_of_them, deployment=owner, prepare=prepare)

        host.upcoming = [counted(one.deployment) for one in host.upcoming]
        await asyncio.sleep(ROUND_S + 1)
        assert 0 < len(asked) < 50
        await asyncio.sleep(4 * ROUND_S)
        assert len(set(asked)) == 50
        assert len(host.started()) == 1
