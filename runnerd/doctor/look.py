"""Takes looks at the host that may hang, fail or take long.

Invariants: the loop is never blocked; no caller waits longer than a look's limit; a look that hangs is not taken a
second time, so that repeated requests pile up nothing; a look that fails is a check that says so, and hides no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from runnerd.core.units import format_duration
from runnerd.doctor.checks import Check, unknown
from runnerd.log.log import Log

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One look: `take` returns its checks; `name` is the name of the check that says that the look failed."""

    name: str
    take: Callable[[], Coroutine[Any, Any, Sequence[Check]]]
    limit_s: float = 8.0


class Looks:
    def __init__(self, *, log: Log) -> None:
        self._log = log
        self._going: dict[str, asyncio.Task[Sequence[Check]]] = {}

    async def take(self, look: Look) -> Sequence[Check]:
        """Take the look, or join the one under way; a look that exceeds its limit goes on for the next caller."""
        task = self._going.get(look.name)
        if task is None:
            task = asyncio.create_task(look.take(), name=f"doctor: {look.name}")
            self._going[look.name] = task
            task.add_done_callback(lambda done: self._over(look.name, done))
        await asyncio.wait({task}, timeout=look.limit_s)
        if not task.done():
            detail = f"check did not finish within {format_duration(look.limit_s)}; it is still running"
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
    """Call `call` in a thread of its own; return what it returns, raise what it raises.

    Not asyncio.to_thread: a look at a dead NFS mount would hold one of the few threads that all callers share, and the
    daemon's end would wait for that thread.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def resolve(result: T | None, why: BaseException | None) -> None:
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
        with contextlib.suppress(RuntimeError):  # the loop is closed, so no caller waits
            loop.call_soon_threadsafe(resolve, result, why)

    threading.Thread(target=work, name="doctor", daemon=True).start()
    return await future
