"""Asks a process of runnerd's own to compute what may take for ever, such as a schema that others wrote.

Invariants: the outcome is a value, whatever the process does; the process inherits nothing but its stdin and stdout; it
is started at the first request, killed when a request overruns a limit, and ended when it had none for some time, so
that an idle daemon does not hold its memory. One request at a time: the others wait, in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from dataclasses import dataclass
from typing import Protocol

import runnerd
from runnerd.core.units import format_duration, format_size
from runnerd.system.side_program import ANSWER_MAX_BYTES, HEAD, NO_MEMORY, Limits

IDLE_S = 60.0
WAITING_MAX = 256
_WALL_S_PER_CPU_S = 6.0  # a busy host gives the process a part of a processor
_START_S = 60.0
_DRAIN_BYTES = 65536
_BOOT = "import sys; sys.path[:] = sys.argv[2:]; __import__(sys.argv[1], fromlist=['main']).main()"


@dataclass(frozen=True, slots=True)
class SideFailure:
    """Why a request has no answer, in words that follow its name. `overrun`: the request itself is the cause."""

    words: str
    overrun: bool = False


class Asking(Protocol):
    """What answers requests: a SideProcess."""

    async def ask(self, request: bytes) -> bytes | SideFailure:
        """Return the answer, or why there is none."""

    def warm(self) -> None:
        """Prepare for a request that is about to come."""

    async def close(self) -> None:
        """End what answers."""


class SideProcess:
    """A process that runs `main` of the module; `limits` must be those that `main` sets."""

    def __init__(self, *, module: str, limits: Limits, idle_s: float = IDLE_S) -> None:
        self._module = module
        self._limits = limits
        self._idle_s = idle_s
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._warming: asyncio.Task[object] | None = None
        self._idle: asyncio.TimerHandle | None = None

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    def warm(self) -> None:
        """Start the process if there is none: its start takes longer than most requests."""
        if self.pid is None and not self._turn.locked() and (self._warming is None or self._warming.done()):
            self._warming = asyncio.create_task(self._warm(), name=f"start of {self._module}")

    async def _warm(self) -> None:
        async with self._turn:
            await self._running()
            self._rest()

    async def ask(self, request: bytes) -> bytes | SideFailure:
        """Send the request, and wait for the answer; see SideFailure for what else may happen."""
        if self._waiting >= WAITING_MAX:
            return SideFailure(f"{WAITING_MAX} others wait to be resolved")
        self._waiting += 1
        try:
            async with self._turn:
                try:
                    return await self._ask(request)
                finally:
                    self._rest()
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        """End the process."""
        if self._warming is not None:
            await asyncio.wait({self._warming})
        self._disturb()
        await self._kill()

    async def _ask(self, request: bytes) -> bytes | SideFailure:
        answer: bytes | SideFailure = SideFailure("")
        for _ in range(2):  # again, if somebody else has ended the process
            process = await self._running()
            if isinstance(process, SideFailure):
                return process
            answer = await self._exchange(process, request)
            if not isinstance(answer, SideFailure) or answer.overrun:
                break
        return answer

    async def _exchange(self, process: asyncio.subprocess.Process, request: bytes) -> bytes | SideFailure:
        assert process.stdin is not None and process.stdout is not None
        limit_s = self._limits.cpu_s * _WALL_S_PER_CPU_S
        done = False
        try:
            async with asyncio.timeout(limit_s):
                process.stdin.write(HEAD.pack(len(request)) + request)
                await process.stdin.drain()
                (size,) = HEAD.unpack(await process.stdout.readexactly(HEAD.size))
                if size > ANSWER_MAX_BYTES:
                    return SideFailure(f"the result is larger than {format_size(ANSWER_MAX_BYTES)}", overrun=True)
                answer = await process.stdout.readexactly(size)
                done = answer != NO_MEMORY
            return answer if done else self._no_memory()
        except TimeoutError:
            return SideFailure(f"it took more than {format_duration(limit_s)}", overrun=True)
        except (OSError, asyncio.IncompleteReadError):
            await process.wait()
            return self._why_ended(process.returncode)
        finally:
            if not done:  # also when cancelled: the answer would be taken for that of the next request
                await self._kill()

    def _no_memory(self) -> SideFailure:
        return SideFailure(f"it needs more than {format_size(self._limits.memory_bytes)} of memory", overrun=True)

    def _why_ended(self, status: int | None) -> SideFailure:
        if status == -signal.SIGPROF:
            words = f"it took more than {format_duration(self._limits.cpu_s)} of processor time"
            return SideFailure(words, overrun=True)
        if status is not None and status < 0 and -status not in (signal.SIGKILL, signal.SIGTERM):
            return SideFailure(f"the process that resolves it died of signal {-status}", overrun=True)
        return SideFailure(f"the process that resolves it ended with status {status}")

    # --- the process ------------------------------------------------------------------------------------------------

    async def _running(self) -> asyncio.subprocess.Process | SideFailure:
        self._disturb()
        if self._process is not None and self._process.returncode is None:
            return self._process
        pipe, nothing = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
        command = (sys.executable, "-I", "-S", "-c", _BOOT, self._module, *_module_paths())
        try:
            async with asyncio.timeout(_START_S):
                self._process = await asyncio.create_subprocess_exec(
                    *command, stdin=pipe, stdout=pipe, stderr=nothing, env={}, cwd="/", start_new_session=True
                )
        except (OSError, TimeoutError) as error:
            return SideFailure(f"cannot start a process: {error.strerror or 'it took too long'}")
        return self._process

    def _rest(self) -> None:
        """End the process after a while without requests."""
        if self._process is not None:
            self._idle = asyncio.get_running_loop().call_later(self._idle_s, self._dismiss)

    def _disturb(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _dismiss(self) -> None:
        """Close the stdin of the process, which ends it."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        self._process = None

    async def _kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        assert process.stdin is not None and process.stdout is not None
        process.stdin.close()
        # asyncio may report the end of a process only once its pipes are read to the end: this would hang.
        with contextlib.suppress(OSError):
            while await process.stdout.read(_DRAIN_BYTES):
                continue
        await process.wait()


def _module_paths() -> list[str]:
    """List where this process finds modules: -I and -S leave out what a virtual environment adds."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(runnerd.__file__)))
    return list(dict.fromkeys(path for path in (root, *sys.path) if path))
