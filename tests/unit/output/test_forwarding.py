"""forwarding.py: each line of output reaches the journal once, across restarts, whatever journald and the disk do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from runnerd.config.in_force import ConfigInForce
from runnerd.core.machine import Phase, RunRecord
from runnerd.core.record_feed import RecordFeed
from runnerd.core.settings import Config, OutputSettings, Settings
from runnerd.log.journald import Journald
from runnerd.output.forwarding import RUN_LINES_PER_WINDOW, Forwarder
from runnerd.system.directories import positions_path, runs_dir
from runnerd.system.paths import Paths
from tests.kits.fakes.fake_journald import journald_at
from tests.kits.nouns import LogLines, a_record, log_to, settings

pytestmark = pytest.mark.real_io

LIMIT_S = 60.0


class World:
    """What a daemon has, and what outlives it: its runs, their output, and journald."""

    def __init__(self, home: Path) -> None:
        self.paths = Paths(*(str(home / name) for name in ("etc", "run", "state", "log")), None)
        os.makedirs(runs_dir(self.paths))
        os.makedirs(self.paths.state)
        self.socket = home / "s"
        self.runs: dict[str, RunRecord] = {}
        self.config = ConfigInForce(Config(settings=settings()))
        self.feed = RecordFeed()
        self.log = LogLines()
        self.at = 0.0

    def path(self, run_id: str, attempt: int = 1) -> Path:
        return Path(runs_dir(self.paths), f"{run_id}.{attempt}.log")

    def begin(self, run_id: str, *, attempt: int = 1, **changes: object) -> RunRecord:
        output = str(self.path(run_id, attempt))
        made = a_record(run_id, phase=Phase.RUNNING, output=output, attempt=attempt, **changes)
        self.runs[run_id] = made
        return made

    def write(self, run_id: str, text: str, attempt: int = 1) -> None:
        with open(self.path(run_id, attempt), "a", encoding="utf-8") as file:
            file.write(text)

    def positions(self) -> list[dict[str, object]]:
        path = Path(positions_path(self.paths))
        return list(json.loads(path.read_text())) if path.exists() else []

    def forwarder(self, journald: Journald) -> Forwarder:
        return Forwarder(
            journald=journald,
            paths=self.paths,
            records=lambda: list(self.runs.values()),
            config=self.config,
            feed=self.feed,
            log=log_to(self.log),
            clock=lambda: self.at,
        )

    @contextlib.asynccontextmanager
    async def daemon(self) -> AsyncIterator[Forwarder]:
        """Run a forwarder; at the end it is cancelled, as when the daemon stops."""
        journald = Journald(path=str(self.socket))
        forwarder = self.forwarder(journald)
        keeping = asyncio.create_task(forwarder.run())
        try:
            yield forwarder
            assert not keeping.done()
        finally:
            keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeping
            journald.close()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def off(before: Settings) -> Settings:
    return replace(before, output=OutputSettings(journal="never"))


async def until(condition: Callable[[], object], what: str) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not condition():
            await asyncio.sleep(0.005)
    assert condition(), what


async def test_lines_come_as_they_are_written_and_the_rest_at_the_end(world: World) -> None:
    with journald_at(world.socket) as fake:
        async with world.daemon():
            record = world.begin("r")
            world.feed.publish(record)
            world.write("r", "one\n")
            await until(lambda: fake.messages() == ["one"], "the first line")
            world.write("r", "two\nthree")
            await until(lambda: fake.messages() == ["one", "two"], "the second")
            world.runs["r"] = replace(record, phase=Phase.REPORTING)
            world.feed.publish(world.runs["r"])
            await until(lambda: fake.messages() == ["one", "two", "three"], "what had no end")
            world.write("r", "a hook\n")
            await until(lambda: len(fake.messages()) == 4, "what hooks say")
            await until(lambda: world.positions(), "its position on disk")
            del world.runs["r"]
            world.feed.publish(replace(record, phase=Phase.DONE))
            await until(lambda: not world.positions(), "it to be forgotten")
        assert fake.messages() == ["one", "two", "three", "a hook"]
        assert fake.entries[0]["RUNNERD_RUN_ID"] == b"r"


async def test_a_real_process_that_ends_before_anybody_looked(world: World) -> None:
    with journald_at(world.socket) as fake:
        async with world.daemon():
            record = world.begin("r")
            world.feed.publish(record)
            with open(record.output or "", "ab") as file:
                program = "import sys; print('out', flush=True); print('err', file=sys.stderr); print('end', end='')"
                subprocess.run([sys.executable, "-c", program], stdout=file, stderr=file, check=True)
            del world.runs["r"]
            world.feed.publish(replace(record, phase=Phase.DONE))
            await until(lambda: len(fake.messages()) == 3, "its lines")
        assert fake.messages() == ["out", "err", "end"]


async def test_a_restart_repeats_nothing_and_loses_nothing(world: World) -> None:
    with journald_at(world.socket) as fake:
        world.begin("goes-on")
        world.begin("ends")
        async with world.daemon():
            world.write("goes-on", "1\nhal")
            world.write("ends", "a\n")
            await until(lambda: len(fake.messages()) == 2, "the first lines")
        world.write("goes-on", "f\n2\n")
        world.write("ends", "b\nc")
        del world.runs["ends"]  # its end was reported before a daemon looked at its output
        async with world.daemon():
            await until(lambda: len(fake.messages()) == 6, "the other lines")
            world.write("goes-on", "3\n")
            await until(lambda: len(fake.messages()) == 7, "the last line")
        assert [entry["MESSAGE"] for entry in fake.entries if entry["RUNNERD_RUN_ID"] == b"goes-on"] == [
            b"1",
            b"half",
            b"2",
            b"3",
        ]
        assert [e["MESSAGE"] for e in fake.entries if e["RUNNERD_RUN_ID"] == b"ends"] == [b"a", b"b", b"c"]
        assert [position["run"] for position in world.positions()] == ["goes-on"]


async def test_what_is_written_by_the_end_is_sent_before_the_daemon_goes(world: World) -> None:
    """A host that stops ends its runs, and there may be no next daemon for long."""
    with journald_at(world.socket) as fake:
        record = world.begin("r")
        async with world.daemon():
            world.write("r", "one\n")
            await until(lambda: fake.messages() == ["one"], "the first line")
            world.write("r", "the last words")
            del world.runs["r"]
            world.feed.publish(replace(record, phase=Phase.DONE))
        await until(lambda: fake.messages() == ["one", "the last words"], "the last words")
        assert world.positions() == []


async def test_each_attempt_is_read_from_its_own_beginning_to_its_end(world: World) -> None:
    with journald_at(world.socket) as fake:
        async with world.daemon():
            world.feed.publish(world.begin("r"))
            world.write("r", "first\nno end")
            world.feed.publish(world.begin("r", attempt=2))
            world.write("r", "second\n", attempt=2)
            await until(lambda: len(fake.messages()) == 3, "all lines")
            await until(lambda: [one["attempt"] for one in world.positions()] == [2], "the first to be forgotten")
        told = {(entry["RUNNERD_ATTEMPT"], entry["MESSAGE"]) for entry in fake.entries}
        assert told == {(b"1", b"first"), (b"1", b"no end"), (b"2", b"second")}


async def test_a_stuck_journald_is_waited_for(world: World) -> None:
    with journald_at(world.socket, stuck=True) as fake:
        lines = [str(number) for number in range(RUN_LINES_PER_WINDOW // 2)]
        async with world.daemon():
            world.feed.publish(world.begin("r"))
            world.write("r", "\n".join(lines) + "\n")
            await until(world.positions, "a round")
            assert 0 < int(str(world.positions()[0]["offset"])) < os.path.getsize(world.path("r"))
            fake.unstick()
            await until(lambda: len(fake.messages()) == len(lines), "all lines")
        assert fake.messages() == lines


async def test_lines_left_out_are_told_also_when_nothing_follows(world: World) -> None:
    with journald_at(world.socket) as fake:
        async with world.daemon():
            world.feed.publish(world.begin("r"))
            world.write("r", "x\n" * (RUN_LINES_PER_WINDOW + 5))
            await until(lambda: len(fake.messages()) == RUN_LINES_PER_WINDOW, "as many as may pass")
            await until(lambda: [one["left_out"] for one in world.positions()] == [5], "the rest to be counted")
            world.at = 10.0
            await until(lambda: len(fake.messages()) > RUN_LINES_PER_WINDOW, "word of the rest")
        assert fake.messages()[RUN_LINES_PER_WINDOW:] == [
            "runnerd left out 5 lines here: more than 100 a second; runnerctl logs r has them"
        ]


async def test_a_run_that_ends_over_its_bound_has_it_told_at_once(world: World) -> None:
    with journald_at(world.socket) as fake:
        async with world.daemon():
            record = world.begin("r")
            world.write("r", "x\n" * (RUN_LINES_PER_WINDOW + 5))
            del world.runs["r"]
            world.feed.publish(record)
            await until(lambda: len(fake.messages()) == RUN_LINES_PER_WINDOW + 1, "word of the rest")
            await until(lambda: not world.positions(), "it to be forgotten")
        assert "left out 5 lines" in fake.messages()[-1]


async def test_it_can_be_turned_off_and_on_while_runs_go_on(world: World) -> None:
    with journald_at(world.socket) as fake:
        on = world.config.settings()
        record = world.begin("r")
        async with world.daemon():
            world.write("r", "one\n")
            await until(lambda: fake.messages() == ["one"], "the line")
            world.config.replace(Config(settings=off(on)))
            world.feed.publish(record)
            await until(lambda: not world.positions(), "it to be forgotten")
            world.write("r", "two\n")
        assert fake.messages() == ["one"]
        world.config.replace(Config(settings=on))
        async with world.daemon():
            await until(lambda: fake.messages() == ["one", "one", "two"], "all of the run that goes on")


async def test_without_inotify_files_are_looked_at_now_and_then(world: World, tmp_path: Path) -> None:
    with journald_at(world.socket) as fake:
        os.rmdir(runs_dir(world.paths))
        async with world.daemon():
            path = tmp_path / "elsewhere.1.log"
            record = replace(world.begin("r"), output=str(path))
            world.runs["r"] = record
            world.feed.publish(record)
            for number in range(3):
                with open(path, "a") as file:
                    file.write(f"{number}\n")
                await until(lambda: len(fake.messages()) > number, "the line")  # noqa: B023
        assert fake.messages() == ["0", "1", "2"]
        assert "output files are polled every second: inotify is not available" in world.log.events("info")


async def test_a_file_that_cannot_be_read_is_said_once_and_concerns_only_itself(world: World) -> None:
    with journald_at(world.socket) as fake:
        async with world.daemon():
            bad = world.begin("bad")
            os.mkdir(bad.output or "")
            world.feed.publish(bad)
            world.feed.publish(world.begin("good"))
            for number in range(3):
                world.write("good", f"{number}\n")
                await until(lambda: len(fake.messages()) > number, "the line")  # noqa: B023
            del world.runs["bad"]
            world.feed.publish(replace(bad, phase=Phase.DONE))
            await until(lambda: [one["run"] for one in world.positions()] == ["good"], "the bad one to be forgotten")
        said = [line for line in world.log.all() if line["level"] == "warning"]
        assert [(line["run"], line["why"]) for line in said] == [
            ("bad", f"cannot read {bad.output}: not a regular file")
        ]


@pytest.mark.parametrize("left", ["", "{", "[1]", '[{"run": "r"}]', "{}x"])
async def test_positions_that_cannot_be_read_are_begun_anew(world: World, left: str) -> None:
    with journald_at(world.socket) as fake:
        Path(positions_path(world.paths)).write_text(left)
        world.begin("r")
        world.write("r", "one\n")
        async with world.daemon():
            await until(lambda: fake.messages() == ["one"], "the line")
        assert len(world.log.events("warning")) == 1
        assert [one["offset"] for one in world.positions()] == [4]


async def test_positions_that_cannot_be_written_stop_nothing(world: World) -> None:
    with journald_at(world.socket) as fake:
        os.mkdir(positions_path(world.paths) + ".new")
        world.begin("r")
        async with world.daemon():
            for number in range(3):
                world.write("r", f"{number}\n")
                await until(lambda: len(fake.messages()) > number, "the line")  # noqa: B023
        assert fake.messages() == ["0", "1", "2"]
        assert world.log.events("warning") == ["cannot forward output as usual"]


async def test_without_a_journal_it_does_nothing(world: World) -> None:
    forwarder = Forwarder(
        journald=None,
        paths=world.paths,
        records=lambda: list(world.runs.values()),
        config=world.config,
        feed=world.feed,
        log=log_to(world.log),
        clock=lambda: 0.0,
    )
    world.feed.publish(world.begin("r"))
    await forwarder.run()
    assert world.positions() == []
