"""Find and kill the processes that runs of this spawner leave behind: the orphans among our children.

The leader of a run is the subreaper of all its descendants, whatever session or group they enter. At the moment the
leader becomes a zombie, the kernel makes us the parent of what is left. So:

* A child of ours that is not a leader is an orphan of a run whose leader has exited or is exiting.
* An orphan stays our child, alive or as a zombie, until we reap it, so its pid is not reused; and when an orphan dies,
  its children become ours. So when we have no orphan, nothing of any ended run is left, and no scan of /proc is needed.
* This does not hold where the orphans of other programs become our children too: when we are pid 1 of a container, or
  when the program that became the spawner by exec had children. `reliable` is then False, a child of ours need not be a
  run's, and `lineage` finds the processes of each run instead.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from runnerd.spawner.proc.processes import (
    describe_process,
    list_own_children,
    read_run_key,
    scan_processes,
    with_descendants,
)

_KILL_ROUNDS_PER_CALL = 50  # then the loop gets to its other events
_DIES_WITHIN_S = 1.0


class Orphans:
    """`has_live_leader` returns whether a run with this key has a leader that lives."""

    def __init__(self, *, has_live_leader: Callable[[str], bool]) -> None:
        self._has_live_leader = has_live_leader
        self._leaders: set[int] = set()  # pids of leaders, which only the end of their run reaps
        self._killed: dict[int, float] = {}  # pid: when SIGKILL was sent, on the monotonic clock
        self._given_up: set[int] = set()  # pids that did not die of SIGKILL
        self.reliable = os.getpid() != 1 and not list_own_children()

    def add_leader(self, pid: int) -> None:
        """Exempt the leader of a run: it is a child of ours, and not an orphan."""
        self._leaders.add(pid)

    def drop_leader(self, pid: int) -> None:
        """Forget a leader that was reaped."""
        self._leaders.discard(pid)

    def is_unknown(self, pid: int) -> bool:
        """Return whether this child of ours leads no run, and was not killed as an orphan."""
        return pid not in self._leaders and pid not in self._killed and pid not in self._given_up

    def kill_all(self) -> bool:
        """SIGKILL every orphan, without a scan of /proc; return whether some are left that may still die."""
        if not self.reliable:
            return False
        for _ in range(_KILL_ROUNDS_PER_CALL):
            left, changed = self._kill_once()
            if not changed:
                break
        return left

    def _kill_once(self) -> tuple[bool, bool]:
        """Also return whether an orphan was killed or reaped: its children became ours, and take another round."""
        left = changed = False
        for pid in list_own_children():
            if pid in self._leaders:
                continue
            if self._reap(pid):
                changed = True
            elif pid in self._killed:
                left = True
            elif pid not in self._given_up and not self._belongs_to_live_run(pid):
                self._killed[pid] = time.monotonic()
                _kill(pid)
                left = changed = True
        return left, changed

    def _belongs_to_live_run(self, pid: int) -> bool:
        """Return whether the process names a run that lives, and so is no orphan.

        A process of a live run becomes our child by CLONE_PARENT, when its leader is a subreaper no more, or while the
        leader exits. Read again each time: once that run has ended, the process is an orphan.
        """
        key = read_run_key(pid)
        return key is not None and self._has_live_leader(key)

    def kill_descendants(self) -> None:
        """SIGKILL the descendants of the killed orphans too: an orphan that does not die must not protect them."""
        if self.reliable:
            for process in with_descendants(scan_processes(), self._killed):
                if process.alive and process.pid not in self._killed:
                    process.send_signal(signal.SIGKILL)

    def give_up(self) -> list[str]:
        """Leave alone the orphans that did not die within a second of SIGKILL; return these for the log."""
        stuck = [pid for pid, when in self._killed.items() if when <= time.monotonic() - _DIES_WITHIN_S]
        stuck = [pid for pid in stuck if not self._reap(pid)]
        for pid in stuck:
            del self._killed[pid]
            self._given_up.add(pid)
        return [describe_process(pid) for pid in stuck]

    def reap(self) -> None:
        """Reap the children that have exited, up to the first leader.

        waitid reports one zombie at a time: those behind a leader's are reaped after the end of its run has reaped the
        leader and called this again.
        """
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
        self._killed.pop(pid, None)
        self._given_up.discard(pid)
        return True


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except PermissionError:
        return  # a process of another user, that may still exit once its descendants, if they are ours, are killed
