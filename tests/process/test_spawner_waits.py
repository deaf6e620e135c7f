"""A process that is started before the time at which it is to execute its program: it waits, and not for ever."""

from __future__ import annotations

import asyncio
import signal
import time

from runnerd.spawner.child.setup import EXECUTE_AHEAD_MAX_S
from tests.kits.spawner import SpawnerUnderTest
from tests.process.test_spawner_end import end_of

CLOCK = ("date", "+%s.%N")


async def test_the_program_begins_then_and_not_before(spawner: SpawnerUnderTest) -> None:
    at_s = time.time() + 0.7
    record = await end_of(spawner, spawner.spec("run", *CLOCK, execute_at_s=at_s))
    assert record.error is None
    assert record.started_at.timestamp() < at_s <= float(spawner.output("run"))


async def test_it_waits_no_longer_than_it_may(spawner: SpawnerUnderTest) -> None:
    begun_s = time.monotonic()
    await end_of(spawner, spawner.spec("run", *CLOCK, execute_at_s=time.time() + 1e9))
    assert time.monotonic() - begun_s >= EXECUTE_AHEAD_MAX_S
    assert spawner.output("run")


async def test_a_time_that_is_over_is_no_wait(spawner: SpawnerUnderTest) -> None:
    await end_of(spawner, spawner.spec("run", *CLOCK, execute_at_s=0.0))
    assert spawner.output("run")


async def test_it_can_be_stopped_meanwhile(spawner: SpawnerUnderTest) -> None:
    async with spawner.link() as link:
        spec = spawner.spec("run", *CLOCK, execute_at_s=time.time() + EXECUTE_AHEAD_MAX_S)
        started = asyncio.create_task(link.client.spawn(spec))
        await asyncio.sleep(0)  # the request is on its way before the next one
        await link.client.stop(key="run", attempt=spec.attempt, reason="cancel")
        assert (await started).error is None
        ended = (await link.until("run", "exited")).exit
        assert ended is not None and ended.signal == signal.SIGTERM
    assert spawner.output("run") == ""


async def test_one_that_cannot_be_executed_says_so_then(spawner: SpawnerUnderTest) -> None:
    record = await end_of(spawner, spawner.spec("run", "/no/such/program", execute_at_s=time.time() + 0.2))
    assert record.error is not None and record.error.stage == "exec"


async def test_the_spawner_says_that_it_can(spawner: SpawnerUnderTest) -> None:
    async with spawner.link() as link:
        assert link.client.hello is not None and link.client.hello.waits
