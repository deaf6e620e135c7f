"""table.py: which run is forked from which interpreter, and what happens when one fails."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from runnerd.core.process import LaunchSpec
from runnerd.core.settings import WarmSettings
from runnerd.launch.prepared import Prepared, WarmWish
from runnerd.warm.demand import UNKNOWN_IMPORT_S
from runnerd.warm.failures import RETRY_FIRST_S
from runnerd.warm.table import RECENT_S, REFUSALS_MAX
from tests.kits.engine import start
from tests.kits.fakes.fake_spawner import FakeSpawner
from tests.kits.jump_loop import START_S
from tests.kits.nouns import Json
from tests.kits.warm_host import WarmHost, a_spec, a_venv, a_wish, warm_host

AUTO = a_wish("auto")
LOGGED = "a warm interpreter has failed; its runs start cold"


def replace_warm(host: WarmHost, **bounds: Json) -> None:
    settings = host.engine.settings
    host.engine.settings = type(settings)(name=settings.name, api=settings.api, warm=WarmSettings(**bounds))


def why(prepared: Prepared) -> Json:
    assert isinstance(prepared.start, LaunchSpec)
    assert prepared.start.fork_of is None
    return prepared.record_fields["start_problem"]


async def test_warm_from_the_first_run_on(tmp_path: Path) -> None:
    async with warm_host(tmp_path) as host:
        assert await host.starts(3) == ["warm"] * 3
        assert len(host.started()) == 1
        assert [one.runs for one in host.table.all()] == [3]


async def test_cold_is_cold(tmp_path: Path) -> None:
    async with warm_host(tmp_path) as host:
        assert await host.starts(5, a_wish("cold")) == ["cold"] * 5
        assert (host.started(), host.engine.problems.all()) == ([], [])


async def test_auto_is_warm_from_the_second_run_within_idle_on(tmp_path: Path) -> None:
    async with warm_host(tmp_path, idle_s=60.0) as host:
        for _ in range(3):
            assert await host.starts(1, AUTO) == ["cold"]
            await asyncio.sleep(61)
        assert host.started() == []
        assert await host.starts(4, AUTO) == ["cold", "warm", "warm", "warm"]


async def test_a_start_that_is_tried_again_counts_once(tmp_path: Path) -> None:
    async with warm_host(tmp_path) as host:
        for _ in range(3):
            assert why(await host.choose(AUTO, run_id="r-1")) is None
        assert host.started() == []


async def test_auto_counts_runs_of_every_deployment_that_may_share_one(tmp_path: Path) -> None:
    async with warm_host(tmp_path) as host:
        assert await host.starts(1, a_wish("auto", owner="d-1")) == ["cold"]
        assert await host.starts(1, a_wish("auto", owner="d-2"), working_directory="/other") == ["warm"]


async def test_runs_at_once_wait_for_one_interpreter(tmp_path: Path) -> None:
    spawner = FakeSpawner()
    spawner.imports_for_ever = True
    async with warm_host(tmp_path, spawner=spawner) as host:
        starts = [asyncio.create_task(host.start()) for _ in range(5)]
        await asyncio.sleep(2)
        assert len(host.started()) == 1
        spawner.end_imports((host.started()[0].key, 1))
        assert [record.start for record in await asyncio.gather(*starts)] == ["warm"] * 5


async def test_no_run_waits_longer_than_a_cold_start_takes(tmp_path: Path) -> None:
    spawner = FakeSpawner()
    spawner.imports_for_ever = True
    async with warm_host(tmp_path, spawner=spawner) as host:
        assert why(await host.choose()) == "the warm interpreter was not ready in time"
        waited_s = host.engine.clock() - START_S
        assert UNKNOWN_IMPORT_S < waited_s < 2 * UNKNOWN_IMPORT_S
        assert await host.starts(1) == ["cold"]
        assert host.engine.clock() - START_S == pytest.approx(waited_s, abs=0.1), "the next one does not wait again"
        spawner.end_imports((host.started()[0].key, 1))
        await asyncio.sleep(1)
        assert await host.starts(1) == ["warm"], "and from then on it is there"


async def test_a_run_waits_as_long_as_the_last_imports_took(tmp_path: Path) -> None:
    spawner = FakeSpawner()
    spawner.imports_for_ever = True
    async with warm_host(tmp_path, spawner=spawner) as host:
        await host.choose()
        await asyncio.sleep(15)
        spawner.end_imports((host.started()[0].key, 1))
        await host.start()
        host.table.drop(host.table.all()[0], why="test")
        began = host.engine.clock()
        await host.choose()
        assert 20 < host.engine.clock() - began < 40


async def test_one_that_fails_is_said_once_and_tried_again_later(tmp_path: Path) -> None:
    async with warm_host(tmp_path) as host:
        host.spawner.warm_problem = "module pandas has started\nthe thread\x1b[31m pool"
        wish = a_wish(preload=("pandas",))
        words = "module pandas has started the thread [31m pool"
        assert why(await host.choose(wish)) == words
        for _ in range(3):
            assert why(await host.choose(wish)) == words
        assert len(host.started()) == 1
        (problem,) = host.engine.problems.all()
        assert problem.message == (
            f"cannot start a warm interpreter of {host.python} with pandas as etl, so its runs start cold: {words};"
            " correct run.preload, or set run.start to cold"
        )
        await asyncio.sleep(RETRY_FIRST_S)
        assert why(await host.choose(wish)) == words
        await asyncio.sleep(1.5 * RETRY_FIRST_S)
        await host.choose(wish)
        assert len(host.started()) == 2, "the delay doubles"
        assert [event for event in host.engine.lines.events("warning") if "has failed" in event] == [LOGGED]
        host.spawner.warm_problem = None
        await asyncio.sleep(RETRY_FIRST_S)
        assert await host.starts(1, wish) == ["warm"]
        assert host.engine.problems.all() == []


async def test_one_that_fails_is_tried_at_once_when_its_environment_has_changed(tmp_path: Path) -> None:
    async with warm_host(tmp_path) as host:
        host.spawner.warm_problem = "cannot import prefect"
        assert await host.starts(2) == ["cold", "cold"]
        host.spawner.warm_problem = None
        (tmp_path / "venv/lib/python3.11/site-packages/b.pth").write_text("")
        assert await host.starts(1) == ["warm"]


async def test_it_is_replaced_when_a_pth_file_has_changed(tmp_path: Path) -> None:
    async with warm_host(tmp_path) as host:
        await host.start()
        os.utime(tmp_path / "venv/lib/python3.11/site-packages/a.pth", (1, 1))
        assert await host.starts(2) == ["warm", "warm"]
        first, second = host.started()
        await asyncio.sleep(1)
        assert host.live() == [second.key] != [first.key]
        assert [stop.key for stop in host.spawner.stops] == [first.key]
        assert host.engine.problems.all() == []


async def test_no_more_than_there_may_be(tmp_path: Path) -> None:
    pythons = [a_venv(tmp_path / name) for name in "abc"]
    async with warm_host(tmp_path, interpreters=2) as host:
        assert await host.starts(1, python=pythons[0]) == ["warm"]
        await asyncio.sleep(1)
        assert await host.starts(1, python=pythons[1]) == ["warm"]
        assert why(await host.choose(python=pythons[2])) == "all warm.interpreters (2) are in use"
        await asyncio.sleep(1)  # the clock stands still while code runs
        assert await host.starts(1, python=pythons[0]) == ["warm"]
        await asyncio.sleep(RECENT_S)
        assert await host.starts(1, python=pythons[2]) == ["warm"]
        await asyncio.sleep(1)
        assert [one.plan.python for one in host.table.all()] == [str(pythons[0]), str(pythons[2])]
        assert len(host.live()) == 2


async def test_none_at_all(tmp_path: Path) -> None:
    async with warm_host(tmp_path, interpreters=0) as host:
        assert await host.starts(3) == ["cold"] * 3


async def test_none_is_started_without_memory(tmp_path: Path) -> None:
    async with warm_host(tmp_path) as host:
        host.short = "1M of memory are available"
        assert why(await host.choose()) == "1M of memory are available"
        assert (host.started(), host.engine.problems.all()) == ([], [])


async def test_a_spawner_that_cannot_fork(tmp_path: Path) -> None:
    spawner = FakeSpawner()
    spawner.hello = type(spawner.hello)(version="0", pid=1, limits={}, why=None)
    async with warm_host(tmp_path, spawner=spawner) as host:
        assert "older" in why(await host.choose())
        assert host.started() == []


async def test_the_record_of_a_run_says_how_it_was_started(tmp_path: Path) -> None:
    async with warm_host(tmp_path) as host:
        assert await start_of(host) == ("warm", None)
        host.short = "1M of memory are available"
        host.table.drop(host.table.all()[0], why="test")
        assert await start_of(host) == ("cold", host.short)


async def start_of(host: WarmHost) -> tuple[str, str | None]:
    """How a run of the engine was started, by its record."""
    run = host.engine.supervisor.run(await start(host.engine))
    assert run is not None
    return run.record.start, run.record.start_problem


async def test_one_that_cannot_be_forked_is_dropped(tmp_path: Path) -> None:
    async with warm_host(tmp_path) as host:
        assert await start_of(host) == ("warm", None)
        key = host.started()[0].key
        host.spawner.fork_problem = f"warm interpreter {key} attempt 1 does not answer"
        for _ in range(REFUSALS_MAX):
            assert await start_of(host) == ("cold", host.spawner.fork_problem)
        await asyncio.sleep(1)
        assert host.live() == []
        (problem,) = host.engine.problems.all()
        assert "start cold: does not answer;" in problem.message
        assert await start_of(host) == ("cold", "does not answer")
        assert len(host.started()) == 1, "not at once again"
        host.spawner.fork_problem = None
        await asyncio.sleep(RETRY_FIRST_S)
        assert await start_of(host) == ("warm", None)
        assert host.engine.problems.all() == []


async def test_what_is_refused_to_one_run_ends_no_interpreter(tmp_path: Path) -> None:
    async with warm_host(tmp_path) as host:
        for _ in range(REFUSALS_MAX):
            host.spawner.fork_problem = "random.py in the working directory hides a module"
            assert await start_of(host) == ("cold", host.spawner.fork_problem)
            host.spawner.fork_problem = None
            assert await start_of(host) == ("warm", None)
        assert len(host.live()) == 1


async def test_one_that_is_killed(tmp_path: Path) -> None:
    async with warm_host(tmp_path) as host:
        await host.start()
        host.spawner.exit(host.started()[0].key, signal=9)
        await asyncio.sleep(1)
        assert why(await host.choose()) == "its process ended: killed by SIGKILL"


async def test_one_that_ends_with_its_spawner_has_not_failed(tmp_path: Path) -> None:
    async with warm_host(tmp_path) as host:
        await host.start()
        host.spawner.exit(host.started()[0].key, code=0)
        await asyncio.sleep(1)
        assert host.engine.problems.all() == []
        assert await host.starts(1) == ["warm"]


async def test_one_that_loses_its_spawner_while_it_imports_has_not_failed(tmp_path: Path) -> None:
    spawner = FakeSpawner()
    spawner.imports_for_ever = True
    async with warm_host(tmp_path, spawner=spawner) as host:
        assert await host.starts(1) == ["cold"]
        spawner.exit(host.started()[0].key, code=None)  # adopted by the next spawner: nobody learns how it ended
        await asyncio.sleep(1)
        assert host.table.all() == []
        assert host.engine.problems.all() == []
        spawner.imports_for_ever = False
        assert await host.starts(1) == ["warm"]


async def test_a_spawner_that_is_lost_takes_them_along(tmp_path: Path) -> None:
    async with warm_host(tmp_path) as host:
        await host.start()
        host.spawner.forget_all()
        host.spawner.lose()
        await asyncio.sleep(5)
        assert host.table.all() == []
        assert await host.starts(1) == ["warm"]
        assert host.engine.problems.all() == []


async def test_a_lost_connection_changes_nothing(tmp_path: Path) -> None:
    async with warm_host(tmp_path) as host:
        await host.start()
        host.spawner.lose()
        await asyncio.sleep(5)
        assert await host.starts(1) == ["warm"]
        assert len(host.started()) == 1


async def test_an_unexpected_error_starts_the_run_cold(tmp_path: Path) -> None:
    async with warm_host(tmp_path) as host:
        host.table.demand.note_run = None  # type: ignore[method-assign, assignment]
        assert "unexpected error: TypeError" in why(await host.choose())


async def test_a_name_that_the_api_has_set_is_shown_in_one_line(tmp_path: Path) -> None:
    async with warm_host(tmp_path) as host:
        words = why(await host.choose(environment={"PYTHON\x1b\n" + "x" * 10_000 + "TOKEN": "1"}))
        assert words.isprintable()
        assert len(words) < 400


async def test_idle_ones_are_ended_with_a_daemon_that_stops(tmp_path: Path) -> None:
    async with warm_host(tmp_path) as host:
        await host.start()
        await host.keeper.stop()
        assert host.live() == []
        assert await host.starts(1) == ["cold"], "and none is started any more"


async def test_a_start_is_foreseen_and_nothing_is_started_for_that(tmp_path: Path) -> None:
    async with warm_host(tmp_path, idle_s=60.0) as host:

        def foreseen(wish: WarmWish | None) -> tuple[str, str | None]:
            before = (len(host.started()), host.table.all())
            found = host.table.foresee(Prepared(start=a_spec(host.python), warm=wish))
            assert (len(host.started()), host.table.all()) == before
            return found

        assert foreseen(None) == ("cold", "no such run is forked")
        assert foreseen(a_wish("cold")) == ("cold", "run.start is cold")
        assert foreseen(a_wish("warm")) == ("warm", "if a warm interpreter is ready in time")
        kind, why_cold = foreseen(AUTO)
        assert (kind, "within warm.idle (1min)" in (why_cold or "")) == ("cold", True)
        assert await host.starts(1, AUTO) == ["cold"]
        assert foreseen(AUTO) == ("warm", "if a warm interpreter is ready in time")
        assert await host.starts(1, AUTO) == ["warm"]
        assert foreseen(AUTO)[1] == f"forked from the warm interpreter of {host.table.all()[0].plan.describe()}"
        replace_warm(host, interpreters=0)
        assert foreseen(AUTO) == ("cold", "warm.interpreters is 0")
