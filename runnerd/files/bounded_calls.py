"""Makes calls that may hang, such as reading a file on a dead NFS mount, in a bounded number of threads.

Invariants: the event loop is never blocked, and no caller waits longer than the time limit; at most THREADS threads
make calls at once, no place has more than its share of them (files/call_places.py), whatever comes at the same time,
and at a place where HANGING_PER_PLACE calls hang no more are begun. A thread that hangs cannot be ended: it is counted
until its call returns, and keeps no process from ending. One that hangs at a remote mount is written off: it takes
nothing from other mounts, because another thread may be started for it. At most WRITTEN_OFF times THREADS are; then
`problem` says so.
"""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import errno
import os
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from runnerd.files.call_places import REMOTE, Bound, Places
from runnerd.files.mounts import Mounts

T = TypeVar("T")

LIMIT_S = 10.0
THREADS = 32
HANGING_PER_PLACE = 2
WRITTEN_OFF = 2
_NAMED_MAX = 3
_LIMIT_WHERE_ONE_HANGS_S = 1.0  # the place may answer again
_HANGS, _NO_THREAD = "does not answer: earlier calls still hang", "is not read: too many calls elsewhere hang"


@dataclass(frozen=True, slots=True)
class Unanswered:
    """Why a call has no result, in words that follow the name of the file: `did not answer within 10 s`."""

    words: str

    def __str__(self) -> str:
        return self.words


@dataclass(slots=True)
class _Flight:
    """One call. `left`: its caller waits no longer. `written_off`: it is to count for its own place only.

    `freed`: its thread does so; `returned`: its thread has ended the call.
    """

    place: str
    bounds: tuple[Bound, ...]
    begun: bool = False
    ended: bool = False
    left: bool = False
    written_off: bool = False
    freed: bool = False
    returned: bool = False

    @property
    def counted(self) -> tuple[Bound, ...]:
        """The bounds that it counts for while it hangs."""
        return self.bounds[:1] if self.written_off else self.bounds


class BoundedCalls:
    """Makes calls in threads. A `place` is what hangs together: a directory, which stands for its mount, or a name.

    `own` are the daemon's own directories, to whose calls some threads are left whatever hangs elsewhere.
    """

    def __init__(
        self,
        *,
        limit_s: float = LIMIT_S,
        threads: int = THREADS,
        mounts: Mounts | None = None,
        own: Collection[str] = (),
        realpath: Callable[[str], str] = os.path.realpath,
    ) -> None:
        self._limit_s = limit_s
        self._threads_max = threads
        self._places = Places(threads=threads, mounts=mounts or Mounts(), own=own, realpath=realpath)
        self._threads = _ShortThreads(threads, learn=self._places.learn)
        self._lock = threading.Lock()
        self._hanging: collections.Counter[str] = collections.Counter()  # by key of a bound: calls without a caller
        self._hang = 0  # not counting those written off
        self._written_off: list[_Flight] = []

    def problem(self) -> str | None:
        """Why remote mounts that answer may not be read; None while there are threads for them."""
        with self._lock:
            places = sorted({flight.place for flight in self._written_off})
            if len(self._written_off) < self._threads_max * WRITTEN_OFF:
                return None
        named = ", ".join(places[:_NAMED_MAX])
        more = f" and {len(places) - _NAMED_MAX} other places" if len(places) > _NAMED_MAX else ""
        return (
            f"{self._threads_max * WRITTEN_OFF} reads of files hang, at {named}{more}: files on other network mounts"
            " may not be read either; repair these mounts, or unmount them and restart runnerd"
        )

    async def call(self, place: str, call: Callable[[], T]) -> T | Unanswered:
        """Return what `call` returns, or why there is no answer. Raises what it raises, but no TimeoutError."""
        flight = _Flight(place, self._places.bounds(place))
        limit_s = self._limit_of(flight)
        if isinstance(limit_s, Unanswered):
            return limit_s
        # run_in_executor, so that a loop with a clock of its own knows of the work
        made, threads = partial(self._make, flight, call), _ThreadsAt(self._threads, flight)
        future: asyncio.Future[T] = asyncio.get_running_loop().run_in_executor(threads, made)
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
        flight = _Flight(place, self._places.bounds(place))
        limit_s = self._limit_of(flight)
        if isinstance(limit_s, Unanswered):
            return limit_s
        future: concurrent.futures.Future[T] = self._threads.begin(partial(self._make, flight, call), flight)
        try:
            return future.result(limit_s)
        except TimeoutError:
            future.cancel()
            return self._say_why(flight, limit_s)
        finally:
            self._leave(flight)

    def _limit_of(self, flight: _Flight) -> float | Unanswered:
        here, *wider = flight.bounds
        with self._lock:
            hanging = self._hanging[here.key]
            if hanging >= HANGING_PER_PLACE:
                return Unanswered(_HANGS)
            if self._hang >= self._threads_max or any(self._hanging[key] >= most for key, most in wider):
                return Unanswered(_NO_THREAD)
        return min(self._limit_s, _LIMIT_WHERE_ONE_HANGS_S) if hanging else self._limit_s

    def _make(self, flight: _Flight, call: Callable[[], T]) -> T:
        """Make the call, in a thread."""
        with self._lock:
            flight.begun = True
            left = flight.left  # between its start and this line
            if left:
                self._begin_hanging(flight)
        if left:
            self._threads.write_off(flight)
        try:
            return call()
        finally:
            with self._lock:
                flight.ended = True
                if flight.left:
                    self._end_hanging(flight)

    def _leave(self, flight: _Flight) -> None:
        with self._lock:
            flight.left = True
            hangs = flight.begun and not flight.ended
            if hangs:
                self._begin_hanging(flight)
        if hangs:
            self._threads.write_off(flight)

    def _begin_hanging(self, flight: _Flight) -> None:
        remote = any(key == REMOTE for key, _ in flight.bounds)
        flight.written_off = remote and len(self._written_off) < self._threads_max * WRITTEN_OFF
        if flight.written_off:
            self._written_off.append(flight)
        self._count(flight, 1)

    def _end_hanging(self, flight: _Flight) -> None:
        self._count(flight, -1)
        if flight.written_off:
            self._written_off = [one for one in self._written_off if one is not flight]

    def _count(self, flight: _Flight, change: int) -> None:
        self._hang += 0 if flight.written_off else change
        self._hanging.update({key: change for key, _ in flight.counted})
        self._hanging += collections.Counter()  # drops the places without one

    def _say_why(self, flight: _Flight, limit_s: float) -> Unanswered:
        if flight.begun:
            return Unanswered(f"did not answer within {limit_s:g} s")
        with self._lock:
            return Unanswered(_HANGS if self._hanging[flight.bounds[0].key] else _NO_THREAD)


@dataclass(eq=False, slots=True)
class _Made:
    """A call that a thread makes or is to make."""

    future: concurrent.futures.Future[Any]
    call: Callable[[], Any]
    flight: _Flight


class _ShortThreads:
    """Starts a thread when a call finds none free; a thread ends when no call waits, so an idle daemon has none.

    Daemon threads, unlike ThreadPoolExecutor's, because the interpreter would wait at its end for one that hangs.
    """

    def __init__(self, threads: int, *, learn: Callable[[str], None]) -> None:
        self._most = threads
        self._learn = learn
        self._lock = threading.Lock()
        self._waiting: list[_Made] = []
        self._under_way: collections.Counter[str] = collections.Counter()  # by key of a bound: begun and not ended
        self._alive = 0

    def begin(self, call: Callable[[], T], flight: _Flight) -> concurrent.futures.Future[T]:
        """Make the call as soon as there is a thread for it, and its bounds have room."""
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        made = _Made(future, call, flight)
        with self._lock:
            if self._alive >= self._most or not self._has_room(flight.bounds):
                self._waiting.append(made)
                return future
            self._alive += 1
            self._count(made.flight.bounds, 1)
        self._start(made)
        return future

    def write_off(self, flight: _Flight) -> None:
        """Count the thread of this call no more but for its own place, if it is to be written off; start another."""
        with self._lock:
            if not flight.written_off or flight.returned:
                return
            flight.freed = True
            self._alive -= 1
            self._count(flight.bounds[1:], -1)
            made = self._take_waiting()
            self._alive += made is not None
        if made is not None:
            self._start(made)

    def _start(self, made: _Made) -> None:
        try:
            threading.Thread(target=self._work, args=(made,), name="bounded call", daemon=True).start()
        except RuntimeError:  # no memory, or TasksMax: the call waits for a thread that runs, or fails without one
            self._do_without(made)

    def _do_without(self, made: _Made) -> None:
        with self._lock:
            self._alive -= 1
            self._count(made.flight.bounds, -1)
            self._waiting.append(made)
            failed = [] if self._alive else self._waiting
            self._waiting = self._waiting if self._alive else []
        for one in failed:
            if one.future.set_running_or_notify_cancel():
                one.future.set_exception(OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)))

    def _has_room(self, bounds: Sequence[Bound]) -> bool:
        return all(self._under_way[key] < most for key, most in bounds)

    def _count(self, bounds: Sequence[Bound], change: int) -> None:
        self._under_way.update({key: change for key, _ in bounds})
        self._under_way += collections.Counter()  # drops the places without one

    def _work(self, first: _Made) -> None:
        made: _Made | None = first
        while made is not None:
            if made.future.set_running_or_notify_cancel():  # else its caller has left
                try:
                    result = made.call()
                except BaseException as raised:
                    made.future.set_exception(raised)
                else:
                    made.future.set_result(result)
                self._learn(made.flight.place)  # only now: it may hang, and the caller has its answer
            made = self._next(made)

    def _next(self, ended: _Made) -> _Made | None:
        """Take another call for the thread of one that has ended; None ends the thread.

        A call that waits for its place needs no other thread: the one that ends a call there comes here.
        """
        flight = ended.flight
        with self._lock:
            flight.returned = True
            self._count(flight.bounds[:1] if flight.freed else flight.bounds, -1)
            self._alive += flight.freed
            made = self._take_waiting() if self._alive <= self._most else None
            self._alive -= made is None
            return made

    def _take_waiting(self) -> _Made | None:
        """Take the first call that waits and whose bounds have room."""
        self._waiting = [made for made in self._waiting if not made.future.cancelled()]
        for made in self._waiting:
            if self._has_room(made.flight.bounds):
                self._waiting.remove(made)
                self._count(made.flight.bounds, 1)
                return made
        return None


class _ThreadsAt(concurrent.futures.Executor):
    """Threads as an executor for one call."""

    def __init__(self, threads: _ShortThreads, flight: _Flight) -> None:
        self._threads = threads
        self._flight = flight

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[T]:
        return self._threads.begin(partial(fn, *args, **kwargs), self._flight)
