"""An asyncio event loop whose clock jumps to the next timer when nothing is ready: an hour takes milliseconds.

The clock stands still while code runs. It never jumps while a job of an executor (`asyncio.to_thread`) is under way.
With `real_io` it also never jumps while a descriptor is watched or another thread is alive: then time passes as it
does outside. When nothing is ready, no timer is set and nothing real can come, the loop says so instead of hanging.
"""

from __future__ import annotations

import asyncio
import math
import selectors
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Executor
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
START_S = 1000.0  # not 0, which reads as false
LOOK_AGAIN_S = 0.02
EPOCH = datetime(2025, 1, 1, tzinfo=UTC)


class Stuck(RuntimeError):
    """Every task waits for something that cannot happen any more."""


class JumpSelector(selectors.BaseSelector):
    """Asks `busy` whether to wait really; otherwise advances `now_s` instead of waiting."""

    def __init__(self, *, real_io: bool) -> None:
        self.now_s = START_S
        self.jobs = 0  # of executors, under way
        self._real_io = real_io
        self._inner = selectors.DefaultSelector()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = self._inner.select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if self._busy():
            return self._wait(timeout)
        # Again: the last other thread may have woken the loop and ended between the first look and `_busy`.
        if ready := self._inner.select(0):
            return ready
        if timeout is None:
            raise Stuck("nothing is ready and no timer is set")
        self._pass(timeout)
        return []

    def _wait(self, timeout: float | None) -> list[tuple[selectors.SelectorKey, int]]:
        # In slices: the last other thread may end without a word, and then this must not go on waiting for real.
        slice_s = LOOK_AGAIN_S if timeout is None else min(timeout, LOOK_AGAIN_S)
        before = time.monotonic()
        ready = self._inner.select(slice_s)
        # A wait that was full ends exactly at its timer, whatever the real clock says.
        self._pass(slice_s if not ready and slice_s == timeout else time.monotonic() - before)
        return ready

    def _pass(self, seconds: float) -> None:
        self.now_s += seconds
        # Beyond some months a float is coarser than the loop's resolution: a timer due right now would never fire.
        if self.now_s + 1e-9 == self.now_s:
            self.now_s = math.nextafter(self.now_s, math.inf)

    def _busy(self) -> bool:
        if self.jobs:
            return True
        # One descriptor is the loop's own wake-up socket; the idle threads of a pool are not work.
        others = [t for t in threading.enumerate() if t is not threading.main_thread() and not pooled(t)]
        return self._real_io and (len(self._inner.get_map()) > 1 or bool(others))

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._inner.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._inner.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._inner.modify(fileobj, events, data)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._inner.get_map()

    def close(self) -> None:
        self._inner.close()


def pooled(thread: threading.Thread) -> bool:
    return thread.name.startswith("asyncio_")


class JumpLoop(asyncio.SelectorEventLoop):
    """See the module; `utcnow` is a wall clock that goes with it, for code that takes one."""

    def __init__(self, *, real_io: bool = False) -> None:
        self._jump = JumpSelector(real_io=real_io)
        super().__init__(self._jump)

    def time(self) -> float:
        return self._jump.now_s

    def utcnow(self) -> datetime:
        return EPOCH + timedelta(seconds=self.time() - START_S)

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        future = super().run_in_executor(executor, func, *args)
        self._jump.jobs += 1
        future.add_done_callback(self._job_done)
        return future

    async def shutdown_default_executor(self, *args: Any) -> None:
        self._jump.jobs += 1  # a thread joins the pool's: not a moment to jump over its time limit
        try:
            await super().shutdown_default_executor(*args)
        finally:
            self._jump.jobs -= 1

    def _job_done(self, _future: asyncio.Future[Any]) -> None:
        self._jump.jobs -= 1


def run(coro: Coroutine[Any, Any, T], *, real_io: bool = False) -> T:
    """Like `asyncio.run`, on a JumpLoop of its own."""
    with asyncio.Runner(loop_factory=lambda: JumpLoop(real_io=real_io)) as runner:
        return runner.run(coro)
