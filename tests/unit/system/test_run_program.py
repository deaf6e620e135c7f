"""A program runs within its time limit, and what becomes of it is a value."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from runnerd.system.run_program import OUTPUT_BYTES, ProgramResult, run_program

pytestmark = pytest.mark.real_io


async def test_it_ends_by_itself() -> None:
    result = await run_program("sh", "-c", "cat; echo out; echo err >&2; exit 3")
    assert result == ProgramResult(3, "out\n", "err\n")


async def test_a_signal_ends_it() -> None:
    assert (await run_program("sh", "-c", "kill -TERM $$")).status == -15


async def test_its_environment() -> None:
    assert (await run_program("/usr/bin/env", environ={"A": "1"})).out == "A=1\n"


async def test_it_cannot_be_started() -> None:
    result = await run_program("/nowhere/at-all")
    assert result == ProgramResult(None, "", "cannot run /nowhere/at-all: No such file or directory")


async def test_it_takes_too_long() -> None:
    result = await run_program("sleep", "600", limit_s=0.05)
    assert result == ProgramResult(None, "", "sleep did not answer within 50ms")


async def test_it_ignores_a_request_to_end(tmp_path: Path) -> None:
    await start_and_cancel(tmp_path, "trap '' TERM INT HUP; {there} $$ $$; while :; do sleep 600; done")
    assert not any(alive(pid) for pid in pids(tmp_path))


async def test_a_process_it_leaves_behind_holds_its_outputs_open(tmp_path: Path) -> None:
    """The outcome is there long before the limit, with all that the program wrote, and the process lives on."""
    script = f"sleep 600 & echo $! > {tmp_path}/there; echo out; echo err >&2; exit 4"
    result = await run_program("sh", "-c", script, limit_s=600.0)
    [left] = pids(tmp_path)
    try:
        assert alive(left)
        assert result == ProgramResult(4, "out\n", "err\n")
    finally:
        os.kill(left, signal.SIGKILL)


async def test_a_child_in_another_session_holds_the_outputs_of_a_killed_program_open(tmp_path: Path) -> None:
    away = "until [ $(cat /proc/$!/comm) = sleep ]; do :; done"
    await start_and_cancel(tmp_path, "setsid sleep 600 & " + away + "; {there} $! $$; wait")
    child, program = pids(tmp_path)
    os.kill(child, signal.SIGKILL)
    assert not alive(program)


async def test_it_is_killed_with_its_children(tmp_path: Path) -> None:
    """A caller that is cancelled ends it as its limit does."""
    await start_and_cancel(tmp_path, "sleep 600 & {there} $! $$; wait")
    assert not alive(pids(tmp_path)[1]), "the program itself is reaped before its caller goes on"
    await until(lambda: not any(alive(pid) for pid in pids(tmp_path)))


async def test_no_more_than_the_beginning_of_its_output_is_held() -> None:
    result = await run_program("sh", "-c", "head -c 1000000 /dev/zero | tr '\\0' x; echo end >&2", limit_s=60.0)
    assert (result.status, result.out, result.err) == (0, "x" * OUTPUT_BYTES, "end\n")


async def start_and_cancel(folder: Path, script: str) -> None:
    """Run `script`, and cancel the caller once the script has run `{there} PID...`."""
    note = f"note() {{ echo $* > {folder}/pids; mv {folder}/pids {folder}/there; }}\n"
    running = asyncio.create_task(run_program("sh", "-c", note + script.format(there="note"), limit_s=600.0))
    await until((folder / "there").exists)
    running.cancel()
    await asyncio.wait({running})
    assert running.cancelled()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


def pids(folder: Path) -> list[int]:
    return [int(word) for word in (folder / "there").read_text().split()]


def alive(pid: int) -> bool:
    """Whether the process is there, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
