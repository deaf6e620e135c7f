"""Looks that may hang, fail or take their time, and what becomes of those who wait for them.

Invariants: the loop is never blocked; nobody waits longer than the limit; a look that hangs is not taken twice, so
that asking again and again piles nothing up; one that fails is a check that says so, and hides no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from runnerd.doctor.checks import Check, unknown
from runnerd.log.log import Log

T = TypeVar("T")
_OUTPUT_BYTES = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """`name` is what its check is called where it comes to nothing."""

    name: str
    take: Callable[[], Coroutine[Any, Any, Sequence[Check]]]
    limit_s: float = 8.0


class Looks:
    def __init__(self, *, log: Log) -> None:
        self._log = log
        self._going: dict[str, asyncio.Task[Sequence[Check]]] = {}

    async def take(self, look: Look) -> Sequence[Check]:
        """What it finds, or that it found nothing in time; then it goes on, and whoever asks next waits for it."""
        task = self._going.get(look.name)
        if task is None:
            task = asyncio.create_task(look.take(), name=f"doctor: {look.name}")
            self._going[look.name] = task
            task.add_done_callback(lambda done: self._over(look.name, done))
        await asyncio.wait({task}, timeout=look.limit_s)
        if not task.done():
            detail = f"cannot be told: looking has taken more than {look.limit_s:g} s, and goes on"
            return [unknown(look.name, detail, "ask again in a while; if it stays like this, look for what hangs")]
        if task.cancelled():
            return [unknown(look.name, "cannot be told: runnerd is stopping")]
        why = task.exception()
        if why is not None:
            detail = f"cannot be told: the look itself failed: {type(why).__name__}: {why}"
            return [unknown(look.name, detail, "runnerd's log has the details: journalctl -u runnerd")]
        return task.result()

    def _over(self, name: str, task: asyncio.Task[Sequence[Check]]) -> None:
        self._going.pop(name, None)
        if not task.cancelled() and task.exception() is not None:
            self._log.error("a look of the doctor failed", look=name, exc_info=task.exception())


async def in_thread(call: Callable[[], T]) -> T:
    """What `call` returns or raises, from a thread of its own.

    Not asyncio.to_thread: a look at a dead NFS mount would keep one of the few threads that everybody shares, and the
    daemon's end would wait for it.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def tell(result: T | None, why: BaseException | None) -> None:
        if future.done():
            return
        if why is not None:
            future.set_exception(why)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def work() -> None:
        result, why = None, None
        try:
            result = call()
        except BaseException as raised:
            why = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(tell, result, why)

    threading.Thread(target=work, name="doctor", daemon=True).start()
    return await future


@dataclass(frozen=True, slots=True)
class Ran:
    """How a program ended; `status` is None when it could not be started or took too long, and `err` says which."""

    status: int | None
    out: str
    err: str


async def program(*argv: str, limit_s: float = 5.0) -> Ran:
    """Run it to its end, and kill it at the limit."""
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
        )
    except OSError as why:
        return Ran(None, "", f"cannot run {argv[0]}: {why.strerror}")
    try:
        out, err = await asyncio.wait_for(process.communicate(), limit_s)
    except TimeoutError:
        return Ran(None, "", f"{argv[0]} did not answer within {limit_s:g} s")
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    texts = [output[:_OUTPUT_BYTES].decode("utf-8", "replace") for output in (out, err)]
    return Ran(process.returncode, *texts)
