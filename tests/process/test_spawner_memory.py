"""Runs that the kernel kills for want of memory, told from those that anybody else kills."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from runnerd.core.process import Identity
from runnerd.spawner.proc.identity import is_alive
from tests.kits.cgroup import EATER, eater_in, inside
from tests.kits.spawner import Link, SpawnerUnderTest, wait_until

# Eats once it was asked to end.
EATS_ON_TERM = f"""\
import os, signal
def eat(number, frame):
    exec({EATER!r})
signal.signal(signal.SIGTERM, eat)
os.write(1, b"ready\\n")
while True:
    signal.pause()
"""

# Has a child that eats, says how that ended, and stays if it is to.
CHILD_EATS = f"""\
import os, signal, sys
pid = os.fork()
if pid == 0:
    exec({EATER!r})
os.write(1, b"its child died of %d\\n" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
if sys.argv[1:]:
    signal.pause()
"""


def python_in(directory: Path, program: str, *arguments: str) -> tuple[str, ...]:
    return tuple(inside(directory, sys.executable, "-I", "-S", "-c", program, *arguments))


async def begin(link: Link, spawner: SpawnerUnderTest, argv: tuple[str, ...], until: str, **more: object) -> Identity:
    record = await link.client.spawn(spawner.spec("run", *argv, **more))
    await asyncio.to_thread(spawner.wait_for_output, "run", until)
    assert record.identity is not None
    return record.identity


async def test_a_run_that_eats_too_much(bounded: Path, spawner: SpawnerUnderTest) -> None:
    async with spawner.link() as link:
        await link.client.spawn(spawner.spec("run", *eater_in(bounded)))
        record = await link.until("run", "exited")
    assert record.exit is not None
    assert (record.exit.code, record.exit.signal, record.exit.oom) == (None, signal.SIGKILL, True)
    assert record.stop_reason is None
    assert " signal=9 out-of-memory\n" in spawner.said()


async def test_a_cancel_that_the_kernel_was_faster_than(bounded: Path, spawner: SpawnerUnderTest) -> None:
    async with spawner.link() as link:
        await begin(link, spawner, python_in(bounded, EATS_ON_TERM), "ready", stop_timeout_s=600.0)
        await link.client.stop(key="run", attempt=0, reason="cancel")
        record = await link.until("run", "exited")
    assert record.exit is not None
    assert (record.stop_reason, record.exit.signal, record.exit.oom) == ("cancel", signal.SIGKILL, True)


async def test_a_child_of_it_that_eats(bounded: Path, spawner: SpawnerUnderTest) -> None:
    async with spawner.link() as link:
        await link.client.spawn(spawner.spec("run", *python_in(bounded, CHILD_EATS)))
        record = await link.until("run", "exited")
    assert spawner.output("run") == "its child died of -9\n"
    assert record.exit is not None
    assert (record.exit.code, record.exit.signal, record.exit.oom) == (0, None, False)


@pytest.mark.parametrize("by_us", [True, False], ids=["us", "somebody"])
async def test_killed_after_its_child_was(bounded: Path, spawner: SpawnerUnderTest, by_us: bool) -> None:
    async with spawner.link() as link:
        leader = await begin(link, spawner, python_in(bounded, CHILD_EATS, "stay"), "died of -9")
        if by_us:
            await link.client.stop(key="run", attempt=0, reason="cancel", timeout_s=0)
        else:
            os.kill(leader.pid, signal.SIGKILL)
        record = await link.until("run", "exited")
    assert record.exit is not None
    assert (record.exit.signal, record.exit.oom) == (signal.SIGKILL, False)


async def test_one_that_was_taken_over(bounded: Path, spawner: SpawnerUnderTest) -> None:
    """Nobody can wait for it. The kernel's log knows."""
    async with spawner.link() as link:
        await begin(link, spawner, python_in(bounded, EATS_ON_TERM), "ready", stop_timeout_s=600.0)
    spawner.end(signal.SIGKILL)
    spawner.start()
    async with spawner.link() as link:
        await link.client.stop(key="run", attempt=0, reason="cancel")
        record = await link.until("run", "exited")
    assert record.exit is not None
    assert (record.exit.code, record.exit.signal, record.exit.oom) == (None, signal.SIGKILL, True)


async def test_while_there_was_no_spawner(bounded: Path, spawner: SpawnerUnderTest) -> None:
    async with spawner.link() as link:
        leader = await begin(link, spawner, python_in(bounded, EATS_ON_TERM), "ready")
    spawner.end(signal.SIGKILL)
    os.kill(leader.pid, signal.SIGTERM)
    wait_until(lambda: not is_alive(leader.pid), "the kernel to kill it")
    spawner.start()
    async with spawner.link() as link:
        record = await link.until("run", "exited")
    assert record.exit is not None
    assert (record.exit.code, record.exit.signal, record.exit.oom) == (None, signal.SIGKILL, True)
