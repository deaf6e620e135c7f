"""What ended runs leave behind among our own descendants, and its end.

Each run's leader is the subreaper of all that descends from it, whatever session or group that puts itself into. When
it exits, all of that becomes ours at the instant at which it becomes a zombie. So:

* A child of ours that is no leader was left behind by a run whose leader has exited (or is exiting): it is a stray.
* A stray stays our child, alive or as a zombie, until we reap it, so its number is its own; and what it had becomes
  ours when it dies. Hence when we have no stray, nothing of any ended run is left, and no look through /proc is needed
  to know it.
* Not so where others' orphans come to us too: as a container's first process, or when whoever became the spawner by
  exec had children. Then `sound` is False, and being our child is no evidence: `kin` has less to go by, but enough.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from runnerd.spawner.proc.processes import below, describe, look, own_children, run_named_by

_STRIKES = 50  # in one go, before others get their turn
_DIES_WITHIN_S = 1.0


class Strays:
    """`leads` tells whether a run with this key has a leader that lives."""

    def __init__(self, *, leads: Callable[[str], bool]) -> None:
        self._leads = leads
        self._leaders: set[int] = set()  # pids that only their own path may reap
        self._struck: dict[int, float] = {}  # pid: when
        self._left_alone: set[int] = set()
        self.sound = os.getpid() != 1 and not own_children()

    def add_leader(self, pid: int) -> None:
        self._leaders.add(pid)

    def drop_leader(self, pid: int) -> None:
        """Once it was reaped."""
        self._leaders.discard(pid)

    def strike(self) -> bool:
        """SIGKILL every stray there is by now, at once and cheaply; whether some are left that may still die."""
        if not self.sound:
            return False
        for _ in range(_STRIKES):
            left, news = self._strike_once()
            if not news:
                break
        return left

    def _strike_once(self) -> tuple[bool, bool]:
        """Also tells whether there was news: then what came to us by it is only seen by looking again."""
        left = news = False
        for pid in own_children():
            if pid in self._leaders:
                continue
            if self._reap(pid):
                news = True
            elif pid in self._struck:
                left = True
            elif pid not in self._left_alone and not self._of_a_live_run(pid):
                self._struck[pid] = time.monotonic()
                _kill(pid)
                left = news = True
        return left, news

    def _of_a_live_run(self, pid: int) -> bool:
        """It was made our child on purpose (CLONE_PARENT), its leader is no subreaper any more, or is just exiting.

        Asked anew each time: at that run's own end it is nobody's.
        """
        key = run_named_by(pid)
        return key is not None and self._leads(key)

    def strike_below(self) -> None:
        """SIGKILL all that descends from strays too: one that does not die must not shield what it has."""
        if self.sound:
            for process in below(look(), self._struck):
                if process.alive and process.pid not in self._struck:
                    process.send(signal.SIGKILL)

    def give_up(self) -> list[str]:
        """Leave alone, from now on, what did not die in good time; what that is, for the log."""
        stuck = [pid for pid, when in self._struck.items() if when <= time.monotonic() - _DIES_WITHIN_S]
        stuck = [pid for pid in stuck if not self._reap(pid)]
        for pid in stuck:
            del self._struck[pid]
            self._left_alone.add(pid)
        return [describe(pid) for pid in stuck]

    def reap(self) -> None:
        """Reap what has ended. Stops at a leader: its own path reaps it, and comes back here for what it hid."""
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None or found.si_pid in self._leaders:
                return
            self._reap(found.si_pid)

    def _reap(self, pid: int) -> bool:
        if os.waitpid(pid, os.WNOHANG)[0] == 0:
            return False
        self._struck.pop(pid, None)
        self._left_alone.discard(pid)
        return True


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except PermissionError:
        return  # another user's; what descends from it may be ours to kill, and it may go with that
