"""Decides how many calls may be under way at one place, so that a place that hangs leaves threads to all others.

A place is the directory that a call is about, or the mount that it is on where that mount may hang as a whole. Where a
directory's links lead is learnt in the thread of a call that has answered, and never asked for at any other time.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from runnerd.files.mounts import Mounts

_LEARNT_MAX = 4096
_NO_PATH = "what is no path"
_UNKNOWN = "directories that have not answered yet"  # a link to a mount that hangs looks like a local directory


class Bound(NamedTuple):
    """How many of the calls with this key may be under way."""

    key: str
    most: int


class Places:
    """Chooses the bounds of each call: of all `threads` an eighth for one place, half for what it may be part of."""

    def __init__(self, *, threads: int, mounts: Mounts, realpath: Callable[[str], str] = os.path.realpath) -> None:
        self._one = max(1, threads // 8)
        self._wider = max(1, threads // 2)
        self._mounts = mounts
        self._realpath = realpath
        self._lock = threading.Lock()
        self._learnt: dict[str, str] = {}  # by place: where its links led when it last answered
        self._learning: set[str] = set()

    def bounds(self, place: str) -> tuple[Bound, ...]:
        """Return the bounds of a call at `place`, the first of which is the place itself."""
        if not os.path.isabs(place):
            return Bound(place, self._one), Bound(_NO_PATH, self._wider)
        real = self._learnt.get(place)
        mount = self._mounts.find(place if real is None else real)
        if mount is not None and mount.remote:
            return (Bound(f"mount {mount.device}", self._one),)
        wider = _UNKNOWN if real is None or mount is None else f"mount {mount.device}"
        return Bound(place, self._one), Bound(wider, self._wider)

    def learn(self, place: str) -> None:
        """Learn where the links of a place lead that has just answered. May hang: for the thread of its call."""
        with self._lock:
            if not os.path.isabs(place) or place in self._learning:  # of one place at most one thread hangs here
                return
            self._learning.add(place)
        try:
            # ValueError: no path, such as one with a null byte. RecursionError: a long chain of links.
            with suppress(OSError, ValueError, RecursionError):
                self._note(place, self._realpath(place))
        finally:
            with self._lock:
                self._learning.discard(place)

    def _note(self, place: str, real: str) -> None:
        with self._lock:
            if place not in self._learnt and len(self._learnt) >= _LEARNT_MAX:
                del self._learnt[next(iter(self._learnt))]
            self._learnt[place] = real
