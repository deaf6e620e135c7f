"""side_process.py, side_program.py: what happens to requests that take for ever, and to the others."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from runnerd.system.side_process import SideFailure, SideProcess
from runnerd.system.side_program import HEAD
from tests.kits.side import LIMITS

pytestmark = pytest.mark.real_io
WAITED = "it took more than 6s"


@asynccontextmanager
async def a_side(*, idle_s: float = 60.0) -> AsyncIterator[SideProcess]:
    side = SideProcess(module="tests.kits.side", limits=LIMITS, idle_s=idle_s)
    try:
        yield side
    finally:
        await side.close()
        assert side.pid is None


async def test_one_process_answers_all_requests_in_order() -> None:
    async with a_side() as side:
        assert side.pid is None, "nothing was asked yet"
        answers = await asyncio.gather(*(side.ask(b"echo %d" % number) for number in range(50)))
        assert answers == [b"%d" % number for number in range(50)]
        pid = side.pid
        assert await side.ask(b"echo " + b"x" * 2**21) == b"x" * 2**21
        assert side.pid == pid


async def test_the_process_has_nothing_of_the_daemon() -> None:
    async with a_side() as side:
        answer = await side.ask(b"about")
        assert isinstance(answer, bytes)
        assert answer.startswith(b"[0, 1, 2] ")
        assert answer.endswith(b" 0 / 1")
        assert b"PATH" not in answer


OVERRUNS = {
    b"spin": "it took more than 1s of processor time",
    b"eat": "it needs more than 256M of memory",
    b"big": "the result is larger than 4M",
    b"kill 11": "the process that resolves it died of signal 11",
}


@pytest.mark.parametrize("request_", OVERRUNS)
async def test_a_request_that_overruns_costs_itself_only(request_: bytes) -> None:
    async with a_side() as side:
        overrun = asyncio.create_task(side.ask(request_))
        others = [asyncio.create_task(side.ask(b"echo %d" % number)) for number in range(3)]
        failed = await overrun
        assert isinstance(failed, SideFailure)
        assert failed.overrun
        if request_ != b"spin" or failed.words != WAITED:  # a busy machine gives it less than a sixth of a processor
            assert failed.words == OVERRUNS[request_]
        assert [await other for other in others] == [b"0", b"1", b"2"]


async def test_a_request_that_waits_for_ever() -> None:
    async with a_side() as side:
        assert await side.ask(b"sleep") == SideFailure(WAITED, overrun=True)
        assert await side.ask(b"echo 1") == b"1"


async def test_a_process_that_somebody_ended_is_started_again() -> None:
    async with a_side() as side:
        await side.ask(b"echo 1")
        pid = side.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        assert await side.ask(b"echo 2") == b"2"
        assert side.pid not in (None, pid)
        assert await side.ask(b"kill 9") == SideFailure("the process that resolves it ended with status -9")


async def test_a_caller_that_leaves_takes_no_answer_of_another() -> None:
    async with a_side() as side:
        leaving = asyncio.create_task(side.ask(b"sleep"))
        await asyncio.wait([leaving], timeout=0.2)
        leaving.cancel()
        assert await side.ask(b"echo mine") == b"mine"


async def test_an_idle_process_ends() -> None:
    async with a_side(idle_s=0.05) as side:
        assert await side.ask(b"echo 1") == b"1"
        pid = side.pid
        while side.pid is not None:
            await asyncio.sleep(0.01)
        while os.path.exists(f"/proc/{pid}"):
            await asyncio.sleep(0.01)
        side.warm()
        assert await side.ask(b"echo 2") == b"2"


async def test_the_process_ends_with_the_daemon() -> None:
    """Even in the middle of a request: its limit is its own."""
    code = "import sys; sys.path[:] = sys.argv[1:]; from tests.kits.side import main; main()"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-c", code, *sys.path, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    process.stdin.write(HEAD.pack(4) + b"spin")
    process.stdin.close()
    assert await process.wait() == -signal.SIGPROF


async def test_a_module_that_is_not_there() -> None:
    side = SideProcess(module="tests.kits.no_such_module", limits=LIMITS)
    answer = await side.ask(b"echo 1")
    assert isinstance(answer, SideFailure)
    assert not answer.overrun
    await side.close()
