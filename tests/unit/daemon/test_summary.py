"""summary.py: the one line of `systemctl status`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

from runnerd.core.problems import Problems
from runnerd.daemon.summary import Summary
from runnerd.system.systemd import Systemd
from tests.kits.engine import Engine, fake_engine


class Recorder:
    """Where notifications go."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def notify(self, state: str) -> None:
        self.told.append(state)


class Scripted(Summary):
    """Says these lines one after the other."""

    lines: Iterator[str] = iter(())

    def line(self) -> str:
        return next(self.lines)


def scripted(engine: Engine, systemd: Systemd, *lines: str) -> Scripted:
    made = Scripted(
        api=engine.api,
        config=engine.config,
        problems=Problems(),
        supervisor=engine.supervisor,
        feed=engine.feed,
        wakes=engine.wakes,
        systemd=systemd,
    )
    made.lines = iter(lines)
    return made


async def test_the_status_line_is_kept_true(tmp_path: Path) -> None:
    recorder = Recorder()

    async with fake_engine(tmp_path) as (engine, _):
        systemd = Systemd(environ={"NOTIFY_SOCKET": "x"}, pid=1, notifier=recorder)
        said = ("1 running", "1 running", "2 running", "0 running", "3 running")
        running = asyncio.create_task(scripted(engine, systemd, *said).run())
        await asyncio.sleep(17)
        engine.wakes.status.set()
        await asyncio.sleep(1)
        running.cancel()
        await asyncio.wait([running])
    assert recorder.told == ["STATUS=1 running", "STATUS=2 running", "STATUS=0 running", "STATUS=3 running"]


async def test_where_there_is_no_systemd_no_line_is_sent(tmp_path: Path) -> None:
    recorder = Recorder()

    async with fake_engine(tmp_path) as (engine, _):
        await scripted(engine, Systemd(environ={}, pid=1, notifier=recorder)).run()
    assert recorder.told == []


async def test_a_run_that_has_changed_is_shown_at_once(tmp_path: Path) -> None:
    recorder = Recorder()

    async with fake_engine(tmp_path) as (engine, _):
        systemd = Systemd(environ={"NOTIFY_SOCKET": "x"}, pid=1, notifier=recorder)
        running = asyncio.create_task(scripted(engine, systemd, *("0 running", "1 running") * 99).run())
        await asyncio.sleep(0)
        engine.offer(engine.add_run(engine.deploy()))
        await asyncio.sleep(0.1)
        running.cancel()
        await asyncio.wait([running])
    assert recorder.told[:2] == ["STATUS=0 running", "STATUS=1 running"]
