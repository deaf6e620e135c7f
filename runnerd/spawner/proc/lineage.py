"""Find and kill the processes of a run whose orphans the kernel does not give to this spawner.

That is a run that an earlier spawner started: its leader is not our child. (`orphans` is for the runs of this spawner.)
While the leader lives, all its descendants belong to the run. Once the leader is gone, the process tree no longer shows
who belongs together, so a process is killed only on one of these grounds:

* an earlier scan saw it as a descendant of the leader (same pid and start time), or it descends from such a process;
* it is in a session in which an earlier scan saw such a process: the kernel does not reuse a session's number while
  any process is in the session;
* it started after the leader, its environment names this run, and it does not belong to a run that lives.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable

from runnerd.spawner.proc.processes import (
    Process,
    ProcessTable,
    describe_process,
    read_run_key,
    scan_processes,
    with_descendants,
)

_STOP_ROUNDS = 50
_UNCHANGED_SCANS = 2  # one more than is needed: a leader that ignores SIGCHLD keeps no zombies


class Lineage:
    """Tracks the process tree of one run. `leaders` returns the pids of the leaders, of all runs, that live."""

    def __init__(self, *, key: str, pid: int, ticks: int, leaders: Callable[[], Iterable[int]]) -> None:
        self._key = key
        self._pid = pid
        self._ticks = ticks
        self._leaders = leaders
        self._seen: dict[int, int] = {pid: ticks}  # the members of the last scan: pid and start ticks
        self._sessions: set[int] = {pid}
        self._not_named: dict[int, int] = {}  # pid and start ticks of processes that name another run or none
        self._last_sweep_found_none = False

    def record_members(self) -> None:
        """Scan for the members now, while the leader shows who they are."""
        self._scan_members(scan_processes())

    def kill_tree(self) -> None:
        """SIGKILL all members and the leader, while the leader lives.

        SIGSTOP first: a process that forks during the scan would leave an orphan of which nothing shows the run. A scan
        can miss both, the process that forks and exits and its child; but the stopped leader does not reap the one that
        exited, so the members change until every process is stopped.
        """
        stopped: dict[int, int] = {}
        unchanged = 0
        for _ in range(_STOP_ROUNDS):
            before = self._seen
            members = [process for process in self._scan_members(scan_processes()) if process.alive]
            fresh = [process for process in members if stopped.get(process.pid) != process.ticks]
            for process in fresh:
                process.send_signal(signal.SIGSTOP)
                stopped[process.pid] = process.ticks
            unchanged = 0 if fresh or self._seen != before else unchanged + 1
            if unchanged == _UNCHANGED_SCANS:
                break
        for process in members:
            process.send_signal(signal.SIGKILL)

    def sweep(self) -> bool:
        """SIGKILL the members that are left after the leader's end; False once two sweeps in a row found none.

        One is not enough: a process that forks and exits during the scan is missed, and so is its child.
        """
        table = scan_processes()
        members = self._keep_members(table, [*self._find_known(table), *self._find_named(table)])
        left = [process for process in members if process.alive]
        for process in left:
            process.send_signal(signal.SIGKILL)
        found_none_before, self._last_sweep_found_none = self._last_sweep_found_none, not left
        return bool(left) or not found_none_before

    def describe_survivors(self) -> list[str]:
        """Return the members that did not die, for the log."""
        table = scan_processes()
        survivors = [pid for pid, ticks in self._seen.items() if _is(table.get(pid), ticks) and table[pid].alive]
        return [describe_process(pid) for pid in survivors]

    def _scan_members(self, table: ProcessTable) -> list[Process]:
        members = self._keep_members(table, self._find_known(table))
        leader = table.get(self._pid)
        # Before its setsid the leader is in the spawner's session; afterwards members are only in sessions of the run.
        if leader is not None and leader.ticks == self._ticks and leader.session == self._pid:
            self._sessions = {process.session for process in members}
        return members

    def _keep_members(self, table: ProcessTable, roots: list[int]) -> list[Process]:
        # A run that is forked of a warm interpreter descends from that at first, and then leads a run of its own.
        others = {process.pid for process in with_descendants(table, set(self._leaders()) - {self._pid})}
        members = [
            process
            for process in with_descendants(table, roots)
            if process.pid != os.getpid() and process.pid not in others
        ]
        self._seen = {process.pid: process.ticks for process in members}
        return members

    def _find_known(self, table: ProcessTable) -> list[int]:
        seen = [pid for pid, ticks in self._seen.items() if _is(table.get(pid), ticks)]
        return seen + [process.pid for process in table.values() if self._in_known_session(table, process)]

    def _in_known_session(self, table: ProcessTable, process: Process) -> bool:
        if process.session not in self._sessions or process.ticks < self._ticks:
            return False
        session_leader = table.get(process.session)
        # A session leader that no scan saw before means that the number was free and given to another session.
        return session_leader is None or self._seen.get(session_leader.pid) == session_leader.ticks

    def _find_named(self, table: ProcessTable) -> list[int]:
        others = {process.pid for process in with_descendants(table, self._leaders())}
        found = []
        for process in table.values():
            if not process.alive or process.ticks < self._ticks or process.pid in others:
                continue
            if self._not_named.get(process.pid) == process.ticks:
                continue
            key = read_run_key(process.pid)
            if key == self._key:
                found.append(process.pid)
            elif key is not None:
                self._not_named[process.pid] = process.ticks
        return found


def _is(process: Process | None, ticks: int) -> bool:
    return process is not None and process.ticks == ticks
