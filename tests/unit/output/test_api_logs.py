"""api_logs.py: the output of commands is in Prefect's log once, over restarts, lost answers and outages."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from runnerd.core.commands import PROGRESS_SUFFIX, STDIN_SUFFIX, CommandRules
from runnerd.core.machine import Phase, RunRecord
from runnerd.core.record_feed import RecordFeed
from runnerd.files.bounded_calls import BoundedCalls
from runnerd.output.api_logs import INTERVAL_S, CommandLogs
from runnerd.output.api_progress import Pending, Progress, load_progress, save_progress
from runnerd.prefect_api.logs import LogsApi
from tests.kits.engine import an_ambient
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.nouns import LogLines, a_record, fake_api

RUN = "aaaaaaaa-0000-4000-8000-000000000001"
OTHER = "aaaaaaaa-0000-4000-8000-000000000002"


class World:
    """What a daemon has, and what outlives it: the server, the runs and their files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.prefect = FakePrefect(major=3)
        self.runs: dict[str, RunRecord] = {}
        self.lines = LogLines()
        self.feed = RecordFeed()

    def path(self, run_id: str = RUN, attempt: int = 1) -> Path:
        return self.folder / f"{run_id}.{attempt}.log"

    def begin(self, run_id: str = RUN, attempt: int = 1) -> None:
        """A command has started: its files are there, as its launcher has made them."""
        Path(f"{self.path(run_id, attempt)}{PROGRESS_SUFFIX}").touch()
        Path(f"{self.path(run_id, attempt)}{STDIN_SUFFIX}").write_text("{}")
        self.note(a_record(run_id, phase=Phase.RUNNING, attempt=attempt, command=CommandRules()))

    def note(self, record: RunRecord) -> None:
        self.runs[record.id] = record
        if record.phase is Phase.DONE:
            del self.runs[record.id]
        self.feed.publish(record)

    def end(self, run_id: str = RUN, attempt: int = 1) -> None:
        self.note(a_record(run_id, phase=Phase.DONE, attempt=attempt, command=CommandRules()))

    def write(self, text: str, run_id: str = RUN, attempt: int = 1) -> None:
        with open(self.path(run_id, attempt), "a", encoding="utf-8") as file:
            file.write(text)

    def sent(self, run_id: str = RUN) -> list[str]:
        found: list[str] = self.prefect.logs.of(run_id)
        return found

    def asked(self, what: str) -> int:
        return sum(one.endswith(what) for one in self.prefect.asked)

    def left(self) -> list[str]:
        return sorted(name for name in os.listdir(self.folder) if not name.endswith(".log"))

    @contextlib.asynccontextmanager
    async def daemon(self) -> AsyncIterator[None]:
        """A daemon that sends; what it has been told of is known to the next one by the files only."""
        loop = asyncio.get_running_loop()
        now = loop.utcnow  # type: ignore[attr-defined]
        api = fake_api(self.prefect, now=now)
        self.feed = RecordFeed()
        logs = CommandLogs(
            api=LogsApi(transport=api.transport),
            folder=str(self.folder),
            records=lambda: list(self.runs.values()),
            calls=BoundedCalls(),
            host_name=lambda: "h-1",
            feed=self.feed,
            ambient=an_ambient(self.lines, now=now, clock=loop.time),
        )
        task = asyncio.create_task(logs.run())
        try:
            yield
            assert not task.done(), "the loop has ended, and the daemon with it"
        finally:
            task.cancel()
            await asyncio.wait([task])
            await api.close()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(3600):
            while not condition():
                await asyncio.sleep(0.1)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_lines_come_while_it_runs_and_the_rest_at_its_end(world: World) -> None:
    async with world.daemon():
        world.begin()
        world.write("a\nb")
        await world.until(lambda: world.sent() == ["a"])
        world.write("c\nd")
        await world.until(lambda: world.sent() == ["a", "bc"])
        world.end()
        await world.until(lambda: world.sent() == ["a", "bc", "d"])
        await world.until(lambda: world.left() == [])


async def test_what_is_run_after_it_is_in_the_log_too(world: World) -> None:
    async with world.daemon():
        world.begin()
        world.write("a\nhalf a ")
        ended = {"phase": Phase.REPORTING, "command": CommandRules(), "after": (("/bin/report",),)}
        world.note(a_record(RUN, **ended))
        await world.until(lambda: world.sent() == ["a"])
        world.note(a_record(RUN, **ended, after_due=True))
        await asyncio.sleep(10 * INTERVAL_S)
        world.write("line\nreported\n")
        world.end()
        await world.until(lambda: world.left() == [])
    assert world.sent() == ["a", "half a line", "reported"]


async def test_a_silent_command_costs_no_request(world: World) -> None:
    async with world.daemon():
        world.begin()
        await asyncio.sleep(600)
        assert world.prefect.asked == []
        world.end()
        await world.until(lambda: world.left() == [])
    assert world.prefect.asked == []


async def test_many_writes_are_few_requests(world: World) -> None:
    async with world.daemon():
        world.begin()
        for number in range(600):
            world.write(f"{number}\n")
            await asyncio.sleep(0.1)
        world.end()
        await world.until(lambda: len(world.sent()) == 600)
    assert world.asked("/logs/") <= 60 / INTERVAL_S + 2
    assert world.sent() == [str(number) for number in range(600)]


async def test_each_attempt_is_sent(world: World) -> None:
    async with world.daemon():
        world.begin()
        world.write("first\n")
        world.begin(attempt=2)
        world.write("second\n", attempt=2)
        await world.until(lambda: world.sent() == ["first", "second"])
        times = [line["timestamp"] for line in world.prefect.logs.lines]
        assert times == sorted(set(times)), "no two lines of a run have one time"
        assert world.left() == [f"{RUN}.2.log.sent", f"{RUN}.2.log.stdin"]
        world.end(attempt=2)
        await world.until(lambda: world.left() == [])


async def test_the_next_daemon_goes_on(world: World) -> None:
    async with world.daemon():
        world.begin()
        world.write("a\n")
        await world.until(lambda: world.sent() == ["a"])
    world.write("b\n")
    async with world.daemon():
        await world.until(lambda: world.sent() == ["a", "b"])
    world.write("c\n")
    del world.runs[RUN]  # it ended while no daemon ran
    async with world.daemon():
        await world.until(lambda: world.left() == [])
    assert world.sent() == ["a", "b", "c"]


@pytest.mark.parametrize("arrived", [True, False])
async def test_a_daemon_that_died_while_it_sent(world: World, arrived: bool) -> None:
    async with world.daemon():
        world.begin()
        world.write("a\n")
        await world.until(lambda: world.sent() == ["a"])
    path = f"{world.path()}{PROGRESS_SUFFIX}"
    (sent,) = world.prefect.logs.lines
    first = load_progress(path).last
    first = first if first is not None else load_progress(path).pending.first  # type: ignore[union-attr]
    save_progress(path, Progress(pending=Pending(to=2, first=first, lines=1)))
    if not arrived:
        world.prefect.logs.lines.remove(sent)
    world.write("b\n")
    async with world.daemon():
        await world.until(lambda: "b" in world.sent())
    assert world.sent() == ["a", "b"]


@pytest.mark.parametrize("after", [True, False])
async def test_a_lost_answer_repeats_no_line(world: World, after: bool) -> None:
    world.prefect.trouble("POST /logs/", after=after, times=3)
    async with world.daemon():
        world.begin()
        world.write("a\n")
        await asyncio.sleep(60)
        world.write("b\n")
        world.end()
        await world.until(lambda: world.left() == [])
    assert world.sent() == ["a", "b"]


async def test_an_outage_is_waited_out_and_nothing_else_waits(world: World) -> None:
    world.prefect.trouble("/logs/", status=503, times=40)
    async with world.daemon():
        world.begin()
        world.write("a\n")
        await asyncio.sleep(30)
        world.end()
        await world.until(lambda: world.left() == [])
    assert world.sent() == ["a"]


async def test_what_the_api_rejects_is_left_out_and_named(world: World) -> None:
    world.prefect.trouble("POST /logs/", status=422, body={"detail": "no"})
    async with world.daemon():
        world.begin()
        world.write("odd\n")
        await asyncio.sleep(INTERVAL_S * 3)
        world.write("b\n")
        world.end()
        await world.until(lambda: world.left() == [])
    assert world.sent() == [
        f"runnerd left out 4 bytes of output here; `runnerctl logs {RUN}` on h-1 has what is stored",
        "b",
    ]
    assert world.lines.events("warning") == ["the API rejects output of a command"]


async def test_one_odd_file_holds_up_no_other(world: World) -> None:
    world.path(OTHER).mkdir()
    async with world.daemon():
        world.begin(OTHER)
        world.begin()
        world.write("a\n")
        await world.until(lambda: world.sent() == ["a"])
        await asyncio.sleep(600)
    assert world.lines.events("warning") == ["cannot send output of a command yet"], "once"


async def test_a_run_at_which_the_server_fails_holds_up_no_other(world: World) -> None:
    world.prefect.trouble("POST /logs/", status=500, times=1)
    async with world.daemon():
        world.begin(OTHER)
        world.write("first\n", OTHER)
        await world.until(lambda: world.asked("/logs/") == 1)
        world.begin()
        world.write("a\n")
        await world.until(lambda: world.sent() == ["a"])
        await world.until(lambda: world.sent(OTHER) == ["first"])
    assert world.lines.events("warning") == ["cannot send output of a command yet"]


async def test_the_output_of_flows_is_left_to_them(world: World) -> None:
    async with world.daemon():
        world.write("a\n")
        world.note(a_record(RUN, phase=Phase.RUNNING, output=str(world.path())))
        await asyncio.sleep(60)
    assert world.prefect.asked == []
