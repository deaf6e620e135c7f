"""The spawner's event loop: descriptors, timers and signals in one thread.

An exception from a callback concerns one run or one connection: the loop prints the traceback, stops watching the
descriptor (or the callback would be called again at once), and goes on with the others.
"""

from __future__ import annotations

import os
import selectors
import signal
import time
from collections.abc import Callable, Hashable

from runnerd.spawner.io.log import log_traceback

_LONGEST_WAIT_S = 86400.0  # epoll refuses more than 24 days, and a run may last longer
READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE


class Loop:
    """Calls back for ready descriptors, due timers and arrived signals."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: dict[Hashable, tuple[float, Callable[[], None]]] = {}
        self._signals: dict[int, Callable[[], None]] = {}
        self._arrived: set[int] = set()
        self._wake_r, self._wake_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.watch_fd(self._wake_r, READ, self._on_signals)
        signal.set_wakeup_fd(self._wake_w, warn_on_full_buffer=False)

    def watch_fd(self, fd: int, events: int, callback: Callable[[], None]) -> None:
        """Call back whenever `fd` is ready for `events`; a second call for `fd` replaces events and callback."""
        if fd in self._selector.get_map():
            self._selector.modify(fd, events, callback)
        else:
            self._selector.register(fd, events, callback)

    def unwatch_fd(self, fd: int) -> None:
        """Stop watching `fd`. Call this before `fd` is closed: the kernel gives the number to the next file opened."""
        if fd in self._selector.get_map():
            self._selector.unregister(fd)

    def set_timer(self, name: Hashable, when: float, callback: Callable[[], None]) -> None:
        """Call back once at `when`, in seconds of the monotonic clock; replaces a timer of the same name."""
        self._timers[name] = (when, callback)

    def cancel_timer(self, name: Hashable) -> None:
        """Drop the timer of this name, if there is one."""
        self._timers.pop(name, None)

    def watch_signal(self, number: int, callback: Callable[[], None]) -> None:
        """Call back from the loop after the signal has arrived."""
        self._signals[number] = callback
        # The set says which signals arrived, the pipe only wakes the loop: a full pipe may lose a byte.
        signal.signal(number, lambda arrived, _frame: self._arrived.add(arrived))

    def run_once(self) -> None:
        """Wait for the next event or timer, and call back for all that are due."""
        timeout = None
        if self._timers:
            timeout = max(0.0, min(when for when, _ in self._timers.values()) - time.monotonic())
            timeout = min(timeout, _LONGEST_WAIT_S)
        for key, _ in self._selector.select(timeout):
            # An earlier callback of this batch may have closed the descriptor, and its number may be another file's.
            if self._selector.get_map().get(key.fd) == key and not self._call(key.data):
                self.unwatch_fd(key.fd)
        now = time.monotonic()
        for name in [name for name, (when, _) in self._timers.items() if when <= now]:
            timer = self._timers.pop(name, None)
            if timer is not None:
                self._call(timer[1])

    def _call(self, callback: Callable[[], None]) -> bool:
        try:
            callback()
        except Exception:
            log_traceback()
            return False
        return True

    def _on_signals(self) -> None:
        os.read(self._wake_r, 4096)
        arrived, self._arrived = self._arrived, set()
        for number in sorted(arrived):
            self._call(self._signals[number])
