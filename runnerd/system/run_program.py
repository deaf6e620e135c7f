"""Runs a short program of this host, such as systemctl, within a time limit.

Invariants: the outcome is a value, whatever happens; at the limit, or when the caller is cancelled, the program and the
processes in its session are killed, and the program is reaped; no more than OUTPUT_BYTES of each output is held; a
process that the program leaves behind after its own end neither delays the outcome nor is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass

from runnerd.core.units import format_duration

OUTPUT_BYTES = 65536
_LAST_OUTPUT_S = 1.0  # after the program's end, for outputs that a process it left behind holds open


@dataclass(frozen=True, slots=True)
class ProgramResult:
    """The exit status and the output of a program, and `-N` for a program that signal N ended.

    `status` is None for a program that could not be started or was killed at its limit; then `err` says which.
    """

    status: int | None
    out: str
    err: str


async def run_program(*argv: str, limit_s: float = 5.0, environ: Mapping[str, str] | None = None) -> ProgramResult:
    """Run `argv` to its end, with nothing on its stdin; `environ` is ours unless given."""
    starting = asyncio.create_task(_start(argv, environ))
    try:
        async with asyncio.timeout(limit_s):
            transport, running = await asyncio.shield(starting)
            await running.exited.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_OUTPUT_S):
                await running.closed.wait()
        return ProgramResult(transport.get_returncode(), running.text(1), running.text(2))
    except TimeoutError:
        return ProgramResult(None, "", f"{argv[0]} did not answer within {format_duration(limit_s)}")
    except OSError as error:
        return ProgramResult(None, "", f"cannot run {argv[0]}: {error.strerror}")
    finally:
        await _end(starting)


async def _start(
    argv: tuple[str, ...], environ: Mapping[str, str] | None
) -> tuple[asyncio.SubprocessTransport, _Running]:
    """Start the program. Not to be cancelled: asyncio would wait for processes that hold the outputs open."""
    pipe = asyncio.subprocess.PIPE
    return await asyncio.get_running_loop().subprocess_exec(
        _Running, *argv, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe, env=environ, start_new_session=True
    )


async def _end(starting: asyncio.Task[tuple[asyncio.SubprocessTransport, _Running]]) -> None:
    """Kill the program unless it has ended, and close its outputs."""
    await asyncio.wait({starting})
    if starting.exception() is not None:
        return
    transport, running = starting.result()
    if transport.get_returncode() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(transport.get_pid(), signal.SIGKILL)  # it leads a session, so the group is its own
        await running.exited.wait()
    transport.close()


class _Running(asyncio.SubprocessProtocol):
    """Collects the outputs of one program.

    Not asyncio.subprocess.Process: in Python 3.11 its wait() waits for the outputs to be closed as well, and a process
    that the program left behind may hold them open for ever.
    """

    def __init__(self) -> None:
        self.exited = asyncio.Event()
        self.closed = asyncio.Event()  # both outputs
        self._outputs = {1: bytearray(), 2: bytearray()}
        self._open = {1, 2}

    def text(self, fd: int) -> str:
        return self._outputs[fd].decode("utf-8", "replace")

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        # Past the bound, read on and drop: a program whose output is not read would never end.
        output = self._outputs[fd]
        output += data[: OUTPUT_BYTES - len(output)]

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self._open.discard(fd)
        if not self._open:
            self.closed.set()

    def process_exited(self) -> None:
        self.exited.set()
