"""Call back once when a file is written to (inotify): a run that prints nothing costs nothing."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable

from runnerd.spawner.io.log import log
from runnerd.spawner.io.loop import READ, Loop

_IN_MODIFY = 0x2
_IN_IGNORED = 0x8000
_IN_DONT_FOLLOW = 0x02000000
_IN_ONESHOT = 0x80000000
_HEADER = struct.Struct("iIII")
_READ_BYTES = 65536


class WriteWatch:
    """Watches files, each until its next write."""

    def __init__(self, *, loop: Loop) -> None:
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            log(f"output files are checked by the clock: {os.strerror(ctypes.get_errno())} (inotify)")
            return
        loop.watch_fd(self._fd, READ, self._on_events)

    def arm(self, path: str, written: Callable[[], None]) -> int | None:
        """Call `written` once after the next write to the file; None where the kernel cannot watch it."""
        if self._fd < 0:
            return None
        mask = ctypes.c_uint32(_IN_MODIFY | _IN_DONT_FOLLOW | _IN_ONESHOT)
        watch = int(self._libc.inotify_add_watch(self._fd, os.fsencode(path), mask))
        if watch < 0:
            return None
        self._callbacks[watch] = written
        return watch

    def disarm(self, watch: int) -> None:
        """Drop a watch; nothing happens to one that has called back."""
        if self._callbacks.pop(watch, None) is not None:
            self._libc.inotify_rm_watch(self._fd, watch)

    def _on_events(self) -> None:
        try:
            events = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return
        called = []
        while len(events) >= _HEADER.size:
            watch, mask, _, length = _HEADER.unpack_from(events)
            events = events[_HEADER.size + length :]
            # IN_IGNORED follows each one-shot event, and comes alone for a file that is gone.
            if mask & (_IN_MODIFY | _IN_IGNORED) and (written := self._callbacks.pop(watch, None)) is not None:
                called.append(written)
        for written in called:
            written()
