"""Decides how many calls may be under way at one place, so that places that hang leave threads to all others.

A place is the directory that a call is about, or the mount that it is on where that mount may hang as a whole. Where a
directory's links lead is learnt in the thread of a call that has answered, and never asked for at any other time.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import NamedTuple

from runnerd.files.mounts import Mounts

_LEARNT_MAX = 4096
_NO_PATH = "what is no path"
REMOTE = "mounts that may hang as a whole"
_UNKNOWN = "directories that have not answered yet"  # a link to a mount that hangs looks like a local directory
_DOUBTFUL = "all but local directories that have answered, and the daemon's own"
_NOT_OWN = "all but the daemon's own directories"


class Bound(NamedTuple):
    """How many of the calls with this key may be under way."""

    key: str
    most: int


class Places:
    """Chooses the bounds of each call: of all `threads` an eighth for one place, half for what it may be part of.

    Whatever hangs, an eighth is left to the directories in `own`, and another eighth to these and the local directories
    that have answered: no disk but one that hangs is to look as if it did.
    """

    def __init__(
        self,
        *,
        threads: int,
        mounts: Mounts,
        own: Collection[str] = (),
        realpath: Callable[[str], str] = os.path.realpath,
    ) -> None:
        self._one = max(1, threads // 8)
        self._wider = max(1, threads // 2)
        not_own = Bound(_NOT_OWN, threads - threads // 8)
        self._local, self._doubtful = (not_own,), (Bound(_DOUBTFUL, threads - 2 * (threads // 8)), not_own)
        self._own = frozenset(own)
        self._mounts = mounts
        self._realpath = realpath
        self._lock = threading.Lock()
        self._learnt: dict[str, str] = {}  # by place: where its links led when it last answered
        self._learning: set[str] = set()

    def bounds(self, place: str) -> tuple[Bound, ...]:
        """Return the bounds of a call at `place`, the first of which is the place itself."""
        if not os.path.isabs(place):
            return Bound(place, self._one), Bound(_NO_PATH, self._wider), *self._doubtful
        real = self._learnt.get(place)
        mount = self._mounts.find(place if real is None else real)
        remote = mount is not None and mount.remote
        here = Bound(f"mount {mount.device}" if mount is not None and remote else place, self._one)
        if place in self._own:
            return (here,)
        if remote:
            return here, Bound(REMOTE, self._wider), *self._doubtful
        if real is None or mount is None:
            return here, Bound(_UNKNOWN, self._wider), *self._doubtful
        return here, Bound(f"mount {mount.device}", self._wider), *self._local

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
