"""disk_room.py: file systems that are full, absent, or do not answer."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from runnerd.files.bounded_calls import BoundedCalls
from runnerd.system.disk_room import MEASURE_EVERY_S, MEASURE_IDLE_EVERY_S, DiskRoom
from tests.kits.nouns import LogLines, log_to

FULL = os.statvfs_result((4096, 4096, 9999, 9, 9, 99, 99, 99, 0, 255))


class Disk:
    """A file system that may hang, be full, or make something else go wrong."""

    def __init__(self) -> None:
        self.answers = threading.Event()
        self.answers.set()
        self.found: os.statvfs_result | Exception = os.statvfs("/")
        self.asked = 0

    def statvfs(self, _directory: str) -> os.statvfs_result:
        self.asked += 1
        self.answers.wait()
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


def a_room(disk: Disk, lines: LogLines | None = None, limit_s: float = 10.0) -> DiskRoom:
    return DiskRoom(
        directories=("/srv/out",),
        calls=BoundedCalls(limit_s=limit_s),
        log=log_to(lines or LogLines()),
        statvfs=disk.statvfs,
    )


async def test_the_loop_goes_on_while_a_file_system_is_asked(tmp_path: Path) -> None:
    disk = Disk()
    room = a_room(disk)
    disk.answers.clear()
    try:
        measuring = asyncio.create_task(room.measure())
        for _ in range(100):
            await asyncio.sleep(0)
        assert (measuring.done(), room.problem()) == (False, None)
    finally:
        disk.answers.set()
    await measuring


async def test_a_file_system_that_does_not_answer_gets_no_new_runs(tmp_path: Path) -> None:
    disk = Disk()
    room = a_room(disk, limit_s=0.05)
    disk.answers.clear()
    try:
        await room.measure()
        words = "its file system did not answer within 0.05 s; mend that disk or mount"
        assert room.problem() == f"cannot record new runs in /srv/out: {words}"
        for _ in range(10):
            await room.measure()
        assert "earlier calls still hang" in (room.problem() or "")
        assert disk.asked <= 2
    finally:
        disk.answers.set()
    while room.problem() is not None:
        await room.measure()


@pytest.mark.parametrize(("busy", "every_s"), [(True, MEASURE_EVERY_S), (False, MEASURE_IDLE_EVERY_S)])
async def test_an_idle_host_is_measured_less_often(busy: bool, every_s: float) -> None:
    disk = Disk()
    running = asyncio.create_task(a_room(disk).run(busy=lambda: busy))
    await asyncio.sleep(60 * every_s + 1)
    assert disk.asked == 61
    running.cancel()


async def test_it_is_measured_again_and_again_whatever_goes_wrong() -> None:
    disk, lines = Disk(), LogLines()
    room = a_room(disk, lines)
    running = asyncio.create_task(room.run(busy=lambda: True))
    for found, problem in ((FULL, True), (FileNotFoundError(), False), (FULL, True), (RuntimeError("odd"), True)):
        disk.found = found
        await asyncio.sleep(2 * MEASURE_EVERY_S)
        assert (room.problem() is not None) is problem
    disk.found = os.statvfs("/")
    await asyncio.sleep(2 * MEASURE_EVERY_S)
    assert room.problem() is None
    assert len(lines.events("error")) == 1
    running.cancel()
