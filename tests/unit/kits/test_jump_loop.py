"""JumpLoop: virtual hours, honest about what is real."""

from __future__ import annotations

import asyncio
import os
import threading
import time

import pytest

from tests.kits.jump_loop import EPOCH, START_S, JumpLoop, Stuck, run

REAL_LIMIT_S = 30.0  # generous: the virtual times below are hours


def test_an_hour_of_polling_takes_no_time() -> None:
    async def poll() -> int:
        rounds = 0
        async with asyncio.timeout(3600):
            for _ in range(720):
                await asyncio.sleep(4.9)
                rounds += 1
        return rounds

    before = time.monotonic()
    assert run(poll()) == 720
    assert time.monotonic() - before < REAL_LIMIT_S


def test_timers_fire_in_order_and_the_clock_shows_their_time() -> None:
    seen: list[tuple[str, float]] = []

    async def after(name: str, delay: float) -> None:
        await asyncio.sleep(delay)
        seen.append((name, asyncio.get_running_loop().time() - START_S))

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for name, delay in (("day", 86400.0), ("year", 365 * 86400.0), ("second", 1.0)):
                group.create_task(after(name, delay))

    run(main())
    assert [name for name, _ in seen] == ["second", "day", "year"]
    assert [at for _, at in seen] == pytest.approx([1.0, 86400.0, 365 * 86400.0])


def test_a_timeout_cuts_what_never_comes() -> None:
    async def main() -> None:
        async with asyncio.timeout(600):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        run(main())


def test_a_deadlock_is_said_instead_of_hanging() -> None:
    cleaned: list[bool] = []

    async def main() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append(True)

    with pytest.raises(Stuck):
        run(main())
    assert cleaned == [True]


def test_the_wall_clock_goes_with_it() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, JumpLoop)
        await asyncio.sleep(7200)
        return (loop.utcnow() - EPOCH).total_seconds()

    assert run(main()) == pytest.approx(7200)


def test_it_does_not_jump_over_a_job_in_a_thread() -> None:
    gate = threading.Event()

    async def main() -> str:
        async with asyncio.timeout(REAL_LIMIT_S):  # were it jumped over, this would fire at once
            job = asyncio.create_task(asyncio.to_thread(gate.wait))
            await asyncio.sleep(0.02)  # really passes: the job is under way
            gate.set()
            await job
        await asyncio.sleep(3600)
        return "done"

    assert run(main()) == "done"


def test_without_a_timer_it_waits_for_the_job() -> None:
    async def main() -> int:
        return await asyncio.to_thread(lambda: 7)

    assert run(main()) == 7


def test_watched_descriptors_do_not_stop_the_clock_unless_asked() -> None:
    async def wait_for_byte(reading: int) -> bytes:
        loop = asyncio.get_running_loop()
        arrived = asyncio.Event()
        loop.add_reader(reading, arrived.set)
        try:
            async with asyncio.timeout(REAL_LIMIT_S):
                await arrived.wait()
            return os.read(reading, 1)
        finally:
            loop.remove_reader(reading)

    reading, writing = os.pipe()
    try:
        with pytest.raises(TimeoutError):
            run(wait_for_byte(reading))
        writer = threading.Timer(0.05, os.write, (writing, b"x"))
        writer.start()
        assert run(wait_for_byte(reading), real_io=True) == b"x"
        writer.join()
    finally:
        os.close(reading)
        os.close(writing)


def test_real_io_jumps_again_when_nothing_real_is_left() -> None:
    async def main() -> bytes:
        process = await asyncio.create_subprocess_exec("/bin/echo", "hi", stdout=asyncio.subprocess.PIPE)
        said, _ = await process.communicate()
        await asyncio.sleep(3600)
        return said

    before = time.monotonic()
    assert run(main(), real_io=True) == b"hi\n"
    assert time.monotonic() - before < REAL_LIMIT_S


def test_real_io_jumps_once_the_last_thread_has_ended_without_a_word() -> None:
    thread = threading.Timer(0.2, lambda: None)
    thread.start()
    before = time.monotonic()
    run(asyncio.sleep(3600), real_io=True)
    assert time.monotonic() - before < REAL_LIMIT_S
    thread.join()
