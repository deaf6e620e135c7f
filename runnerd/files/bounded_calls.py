"""Makes calls that may hang, such as reading a file on a dead NFS mount, in a bounded number of threads.

Invariants: the event loop is never blocked, and no caller waits longer than the time limit; at most THREADS threads
exist at once, and at most HANGING_PER_PLACE of them hang at one place, so that a place that hangs takes the threads of
no other. A thread that hangs cannot be ended: it is counted until its call returns, and keeps no process from ending.
"""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import errno
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")

LIMIT_S = 10.0
THREADS = 32
HANGING_PER_PLACE = 2
_LIMIT_WHERE_ONE_HANGS_S = 1.0  # the place may answer again


@dataclass(frozen=True, slots=True)
class Unanswered:
    """Why a call has no result, in words that follow the name of the file: `did not answer within 10 s`."""

    words: str


@dataclass(slots=True)
class _Flight:
    """One call. `left`: its caller waits no longer."""

    place: str
    begun: bool = False
    ended: bool = False
    left: bool = False


class BoundedCalls:
    """Makes calls in threads. A `place` is what hangs together, such as a directory."""

    def __init__(self, *, limit_s: float = LIMIT_S, threads: int = THREADS) -> None:
        self._limit_s = limit_s
        self._threads_max = threads
        self._executor = _ShortThreads(threads)
        self._lock = threading.Lock()
        self._hanging: collections.Counter[str] = collections.Counter()  # by place: calls that nobody waits for

    async def call(self, place: str, call: Callable[[], T]) -> T | Unanswered:
        """Return what `call` returns, or why there is no answer. Raises what it raises, but no TimeoutError."""
        limit_s = self._limit_at(place)
        if isinstance(limit_s, Unanswered):
            return limit_s
        flight = _Flight(place)
        # run_in_executor, so that a loop with a clock of its own knows of the work
        made = partial(self._make, flight, call)
        future: asyncio.Future[T] = asyncio.get_running_loop().run_in_executor(self._executor, made)
        try:
            async with asyncio.timeout(limit_s):
                result: T = await future
                return result
        except TimeoutError:
            return self._say_why(flight, limit_s)
        finally:
            self._leave(flight)

    def wait(self, place: str, call: Callable[[], T]) -> T | Unanswered:
        """Do as `call`, but block until then: for code that no event loop waits for."""
        limit_s = self._limit_at(place)
        if isinstance(limit_s, Unanswered):
            return limit_s
        flight = _Flight(place)
        future: concurrent.futures.Future[T] = self._executor.submit(self._make, flight, call)
        try:
            return future.result(limit_s)
        except TimeoutError:
            future.cancel()
            return self._say_why(flight, limit_s)
        finally:
            self._leave(flight)

    def _limit_at(self, place: str) -> float | Unanswered:
        with self._lock:
            hanging = self._hanging[place]
            if hanging >= HANGING_PER_PLACE:
                return Unanswered("does not answer: earlier calls still hang")
            if sum(self._hanging.values()) >= self._threads_max:
                return Unanswered("is not read: too many calls elsewhere hang")
        return min(self._limit_s, _LIMIT_WHERE_ONE_HANGS_S) if hanging else self._limit_s

    def _make(self, flight: _Flight, call: Callable[[], T]) -> T:
        """Make the call, in a thread."""
        with self._lock:
            flight.begun = True
            if flight.left:  # between its start and this line
                self._hanging[flight.place] += 1
        try:
            return call()
        finally:
            with self._lock:
                flight.ended = True
                if flight.left:
                    self._hanging[flight.place] -= 1
                    self._hanging += collections.Counter()  # drops the places without one

    def _leave(self, flight: _Flight) -> None:
        with self._lock:
            flight.left = True
            if flight.begun and not flight.ended:
                self._hanging[flight.place] += 1

    def _say_why(self, flight: _Flight, limit_s: float) -> Unanswered:
        if flight.begun:
            return Unanswered(f"did not answer within {limit_s:g} s")
        return Unanswered("is not read: too many calls elsewhere hang")


class _ShortThreads(concurrent.futures.Executor):
    """Starts a thread when a call finds none free; a thread ends when no call waits, so an idle daemon has none.

    Daemon threads, unlike ThreadPoolExecutor's, because the interpreter would wait at its end for one that hangs.
    """

    def __init__(self, threads: int) -> None:
        self._most = threads
        self._lock = threading.Lock()
        self._waiting: collections.deque[tuple[concurrent.futures.Future[Any], Callable[[], Any]]] = collections.deque()
        self._alive = 0

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[T]:
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        with self._lock:
            self._waiting.append((future, lambda: fn(*args, **kwargs)))
            if self._alive >= self._most:
                return future
            self._alive += 1
        try:
            threading.Thread(target=self._work, name="bounded call", daemon=True).start()
        except RuntimeError:  # no memory, or TasksMax: the call waits for a thread that runs, or fails without one
            with self._lock:
                self._alive -= 1
                if not self._alive:
                    self._waiting.clear()
                    future.set_exception(OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)))
        return future

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._alive -= 1
                    return
                future, call = self._waiting.popleft()
            if not future.set_running_or_notify_cancel():
                continue  # its caller has left
            try:
                result = call()
            except BaseException as raised:
                future.set_exception(raised)
            else:
                future.set_result(result)
