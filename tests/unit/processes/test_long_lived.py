"""long_lived.py: a process that is wanted runs, once only, and outlives the daemon that wanted it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from runnerd.core.problems import Problems
from runnerd.core.process import LaunchSpec
from runnerd.processes.link import SpawnerLink
from runnerd.processes.long_lived import LongLived, ProcessState, Unready
from tests.kits.fakes.fake_spawner import FakeSpawner
from tests.kits.nouns import LogLines, log_to

KEY = "kept-1"
LIMIT_S = 3600.0


class Stage:
    """A spawner that stays, and what a daemon keeps through it; `keeping` again is the next daemon."""

    def __init__(self) -> None:
        self.spawner = FakeSpawner()
        self.key: str | None = KEY
        self.unready: Unready | None = None
        self.making: asyncio.Event | None = None  # what is needed takes until this is set
        self.heard: list[str] = []
        self.link = SpawnerLink(
            make_client=self.spawner.make_client,
            start_spawner=self.spawner.start_spawner,
            problems=Problems(),
            log=log_to(LogLines()),
        )
        self.kept = self.new()

    def new(self) -> LongLived:
        return LongLived(
            link=self.link,
            wanted_key=lambda: self.key,
            owns=lambda key: key.startswith("kept-"),
            make_spec=self.make_spec,
            on_running=lambda seen, fresh: self.heard.append(f"{'began' if fresh else 'found'} {seen.key}"),
            on_failure=lambda words, again_in_s: self.heard.append(f"{words}, {again_in_s:g}"),
            before_start=lambda: self.heard.append("starting"),
        )

    async def make_spec(self) -> LaunchSpec | Unready:
        if self.making is not None:
            await self.making.wait()
        if self.unready is not None:
            return self.unready
        return LaunchSpec(key="", attempt=0, argv=("x",), environment={}, working_directory="/", output="/o")

    @asynccontextmanager
    async def keeping(self) -> AsyncIterator[asyncio.Task[None]]:
        """One daemon. Its going touches nothing that runs."""
        self.kept = self.new()
        link = asyncio.create_task(self.link.run())
        await self.link.wait_until_connected()
        task = asyncio.create_task(self.kept.run())
        try:
            yield task
        finally:
            for one in (task, link):
                one.cancel()
            await asyncio.wait([task, link])
            await self.link.close()
        if not task.cancelled() and (why := task.exception()) is not None:
            raise why

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(LIMIT_S):
            while not condition():
                await asyncio.sleep(0.1)

    async def runs(self, key: str = KEY) -> None:
        await self.until(lambda: self.spawner.live() == [key] and self.kept.state is ProcessState.RUNNING)


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_it_is_started_and_started_again_ever_later() -> None:
    stage = Stage()
    async with stage.keeping():
        for _ in range(8):
            await stage.runs()
            stage.spawner.exit(KEY, code=7)
            await stage.until(lambda: stage.kept.state is ProcessState.RESTARTING)
        assert stage.kept.problem == "exited 7"
    waits = [one for one in stage.heard if one.startswith("exited")]
    assert waits == [f"exited 7, {wait}" for wait in (1, 2, 4, 8, 16, 32, 60, 60)]
    assert stage.heard[:4] == ["starting", f"began {KEY}", "exited 7, 1", "starting"]
    assert stage.kept.restarts == 7
    attempts = [spec.attempt for spec in stage.spawner.started]
    assert attempts == sorted(set(attempts)), "a key and an attempt name one process for ever"
    assert len(stage.spawner.records) == 1, "ended ones are forgotten once there is another"


async def test_one_that_ran_steadily_is_started_again_at_once_and_is_no_problem_any_more() -> None:
    stage = Stage()
    async with stage.keeping():
        for _ in range(3):
            await stage.runs()
            stage.spawner.exit(KEY, code=1)
            await stage.until(lambda: stage.kept.state is ProcessState.RESTARTING)
        await stage.runs()
        assert stage.kept.problem == "exited 1"
        await stage.until(lambda: stage.kept.problem is None)
        stage.spawner.exit(KEY, code=2)
        await stage.until(lambda: stage.kept.problem == "exited 2")
        assert stage.heard[-1] == "exited 2, 1"


async def test_the_next_daemon_finds_it_and_starts_nothing() -> None:
    stage = Stage()
    async with stage.keeping():
        await stage.runs()
    assert stage.spawner.live() == [KEY]
    stage.unready = Unready("nobody may ask for this")
    async with stage.keeping():
        await stage.until(lambda: stage.kept.state is ProcessState.RUNNING)
        assert stage.heard[-1] == f"found {KEY}"
        alive = stage.kept.find_live_record()
        assert alive is not None and alive.identity is not None
        stage.unready = None
        stage.spawner.exit(KEY, signal=9)
        await stage.until(lambda: stage.kept.restarts == 1)
        await stage.runs()
    assert stage.spawner.stops == []
    assert [spec.attempt for spec in stage.spawner.runs_of(KEY)] == [1, 2]


async def test_another_one_is_started_once_it_can_be_and_the_first_is_ended_then() -> None:
    stage = Stage()
    async with stage.keeping():
        await stage.runs()
        stage.making, stage.key = asyncio.Event(), "kept-2"
        stage.kept.wake()
        await stage.until(lambda: stage.kept.state is ProcessState.PREPARING)
        assert stage.spawner.live() == [KEY], "it is needed until the other one is ready"
        stage.making.set()
        await stage.runs("kept-2")
        assert [(stop.key, stop.reason) for stop in stage.spawner.stops] == [(KEY, "evict")]
        assert stage.kept.restarts == 0
        assert [key for key, _ in stage.spawner.records] == ["kept-2"]
        assert not [one for one in stage.heard if "killed" in one], "that it ended was no surprise"


async def test_what_cannot_be_started_leaves_the_one_before_and_is_tried_again() -> None:
    stage = Stage()
    async with stage.keeping():
        await stage.runs()
        stage.unready, stage.key = Unready("no way", min_delay_s=30, max_delay_s=100), "kept-2"
        stage.kept.wake()
        before = now()
        await stage.until(lambda: len(stage.heard) == 5)
        assert stage.heard[2:] == ["no way, 30", "no way, 60", "no way, 100"]
        assert (stage.kept.state, stage.kept.problem) == (ProcessState.FAILED, "no way")
        assert stage.spawner.live() == [KEY]
        stage.unready = None
        stage.kept.wake()  # somebody mended it, and need not wait for the next try
        await stage.runs("kept-2")
        assert stage.kept.problem is None
        assert now() - before < 120


async def test_wishes_that_change_while_it_is_made_ready_are_heard() -> None:
    stage = Stage()
    stage.making = asyncio.Event()
    async with stage.keeping():
        await stage.until(lambda: stage.kept.state is ProcessState.PREPARING)
        stage.key = "kept-2"
        stage.making.set()
        await stage.runs("kept-2")
        assert [spec.key for spec in stage.spawner.started] == ["kept-2"]


async def test_one_that_nobody_wants_is_ended_until_somebody_does() -> None:
    stage = Stage()
    async with stage.keeping():
        await stage.runs()
        stage.key = None
        stage.kept.wake()
        await stage.until(lambda: stage.kept.state is ProcessState.WAITING and not stage.spawner.live())
        assert (stage.spawner.records, stage.kept.problem, stage.kept.find_live_record()) == ({}, None, None)
        stage.key = "kept-3"
        stage.kept.wake()
        await stage.runs("kept-3")


async def test_stopping_ends_it_and_all_that_were_left_of_it() -> None:
    stage = Stage()
    stage.key = "kept-0"
    async with stage.keeping():
        await stage.runs("kept-0")
    stage.key, stage.making = KEY, asyncio.Event()
    async with stage.keeping() as task:
        await stage.until(lambda: stage.kept.state is ProcessState.PREPARING)
        stage.spawner.stubborn = True
        stopping = asyncio.create_task(stage.kept.stop())
        await stage.until(lambda: stage.spawner.stops)
        stage.making.set()
        await stopping
        await asyncio.wait([task])
    assert (stage.spawner.records, len(stage.spawner.started)) == ({}, 1)
    assert [(stop.key, stop.timeout_s) for stop in stage.spawner.stops] == [("kept-0", None)]


async def test_a_wait_is_no_reason_to_stop_late() -> None:
    stage = Stage()
    stage.unready = Unready("no way", min_delay_s=1000, max_delay_s=1000)
    async with stage.keeping() as task:
        await stage.until(lambda: stage.heard)
        before = now()
        await stage.kept.stop()
        await asyncio.wait([task])
        assert now() - before < 1000


async def test_a_lost_connection_is_not_a_lost_process() -> None:
    stage = Stage()
    async with stage.keeping():
        await stage.runs()
        stage.spawner.down = True
        stage.spawner.lose()
        await stage.until(lambda: stage.link.problem)
        assert stage.kept.state is ProcessState.RUNNING
        stage.spawner.down = False
        await stage.until(lambda: stage.link.connected)
        stage.spawner.exit(KEY)
        await stage.until(lambda: stage.kept.restarts == 1)
        stage.spawner.forget_all()  # another boot
        stage.spawner.lose()
        await stage.until(lambda: stage.kept.restarts == 2)
        assert "was lost, 2" in stage.heard


async def test_what_the_spawner_refuses_or_cannot_start_is_told() -> None:
    stage = Stage()
    stage.spawner.refuses = "cannot start kept-1: no such user"
    async with stage.keeping():
        await stage.until(lambda: stage.kept.problem)
        assert (stage.kept.state, stage.kept.problem) == (ProcessState.FAILED, stage.spawner.refuses)
        stage.spawner.refuses, stage.spawner.start_error = None, "no such file"
        await stage.until(lambda: stage.kept.problem == "cannot start: no such file")
        stage.spawner.start_error = None
        await stage.runs()
