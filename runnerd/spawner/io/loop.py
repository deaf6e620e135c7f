"""The spawner's event loop: descriptors, timers and signals, one thread.

An exception out of a callback concerns one run or one connection: it is printed, the descriptor is dropped (it would
fire again at once), and everything else goes on.
"""

from __future__ import annotations

import os
import selectors
import signal
import time
from collections.abc import Callable, Hashable

from runnerd.spawner.io.log import log_traceback

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE


class Loop:
    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: dict[Hashable, tuple[float, Callable[[], None]]] = {}
        self._signals: dict[int, Callable[[], None]] = {}
        self._arrived: set[int] = set()
        self._wake_r, self._wake_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.watch(self._wake_r, READ, self._on_signals)
        signal.set_wakeup_fd(self._wake_w, warn_on_full_buffer=False)

    def watch(self, fd: int, events: int, callback: Callable[[], None]) -> None:
        """Call back whenever `fd` is ready; watching it again changes events and callback."""
        if fd in self._selector.get_map():
            self._selector.modify(fd, events, callback)
        else:
            self._selector.register(fd, events, callback)

    def unwatch(self, fd: int) -> None:
        """Before `fd` is closed: a closed number is soon another file's."""
        if fd in self._selector.get_map():
            self._selector.unregister(fd)

    def timer(self, name: Hashable, when: float, callback: Callable[[], None]) -> None:
        """Call back once at `when` on the monotonic clock; a timer of the same name is replaced."""
        self._timers[name] = (when, callback)

    def cancel(self, name: Hashable) -> None:
        self._timers.pop(name, None)

    def on_signal(self, number: int, callback: Callable[[], None]) -> None:
        self._signals[number] = callback
        # The set, not the wake-up pipe, carries the news: a full pipe may lose a byte.
        signal.signal(number, lambda arrived, _frame: self._arrived.add(arrived))

    def turn(self) -> None:
        """Wait for the next thing to happen and do it."""
        timeout = None
        if self._timers:
            timeout = max(0.0, min(when for when, _ in self._timers.values()) - time.monotonic())
        for key, _ in self._selector.select(timeout):
            # An earlier callback of this batch may have dropped it, and its number may be another file's by now.
            if self._selector.get_map().get(key.fd) == key and not self._call(key.data):
                self.unwatch(key.fd)
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
