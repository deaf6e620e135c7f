"""The processes of a run whose orphans do not come to us: one that was taken over from an earlier spawner.

While its leader lives, all that descends from it is its own. When the leader is gone, nothing ties the rest together
any more, so what was seen before counts, and nothing is signalled on less than one of these:

* it is a process that was seen to descend from the leader (the same pid and start time), or descends from one;
* it is in a session that such a process was in: a session's number is nobody else's while anything is in it;
* it was started after the leader, its environment names this run, and it does not belong to a run that lives.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable

from runnerd.spawner.proc.processes import Process, Table, below, describe, look, run_named_by

_FREEZES = 20


class Kin:
    """`leaders` gives the pids of the leaders that live."""

    def __init__(self, *, key: str, pid: int, ticks: int, leaders: Callable[[], Iterable[int]]) -> None:
        self._key = key
        self._pid = pid
        self._ticks = ticks
        self._leaders = leaders
        self._seen: dict[int, int] = {pid: ticks}
        self._sessions: set[int] = {pid}
        self._strangers: dict[int, int] = {}  # whose environment was looked into, and named another run or none
        self._nothing_before = False

    def remember(self) -> None:
        """See who there is, for when the leader is gone."""
        self._remember(look())

    def end(self) -> None:
        """SIGKILL all of it, the leader too, while the leader lives.

        Stopped first, or one could fork while it is looked for; and an orphan would be nobody's.
        """
        stopped: dict[int, int] = {}
        for _ in range(_FREEZES):
            members = [process for process in self._remember(look()) if process.alive]
            fresh = [process for process in members if stopped.get(process.pid) != process.ticks]
            for process in fresh:
                process.send(signal.SIGSTOP)
                stopped[process.pid] = process.ticks
            if not fresh:
                break
        for process in members:
            process.send(signal.SIGKILL)

    def sweep(self) -> bool:
        """SIGKILL what is left now that the leader is gone; False when nothing was found, twice running.

        Once is not enough: one that forks and goes while we look is not seen, and nor is its child.
        """
        table = look()
        members = self._note(table, [*self._known(table), *self._named(table)])
        left = [process for process in members if process.alive]
        for process in left:
            process.send(signal.SIGKILL)
        nothing_before, self._nothing_before = self._nothing_before, not left
        return bool(left) or not nothing_before

    def give_up(self) -> list[str]:
        """What does not die, for the log."""
        table = look()
        return [describe(pid) for pid, ticks in self._seen.items() if _is(table.get(pid), ticks) and table[pid].alive]

    def _remember(self, table: Table) -> list[Process]:
        members = self._note(table, self._known(table))
        leader = table.get(self._pid)
        # Before its setsid the leader is in others' session; from then on its own are only in sessions they made.
        if leader is not None and leader.ticks == self._ticks and leader.session == self._pid:
            self._sessions = {process.session for process in members}
        return members

    def _note(self, table: Table, roots: list[int]) -> list[Process]:
        members = [process for process in below(table, roots) if process.pid != os.getpid()]
        self._seen = {process.pid: process.ticks for process in members}
        return members

    def _known(self, table: Table) -> list[int]:
        seen = [pid for pid, ticks in self._seen.items() if _is(table.get(pid), ticks)]
        return seen + [process.pid for process in table.values() if self._in_session(table, process)]

    def _in_session(self, table: Table, process: Process) -> bool:
        if process.session not in self._sessions or process.ticks < self._ticks:
            return False
        first = table.get(process.session)
        # One that has the number and was never seen tells that the number was free in between.
        return first is None or self._seen.get(first.pid) == first.ticks

    def _named(self, table: Table) -> list[int]:
        others = {process.pid for process in below(table, self._leaders())}
        found = []
        for process in table.values():
            if not process.alive or process.ticks < self._ticks or process.pid in others:
                continue
            if self._strangers.get(process.pid) == process.ticks:
                continue
            named = run_named_by(process.pid)
            if named == self._key:
                found.append(process.pid)
            elif named is not None:
                self._strangers[process.pid] = process.ticks
        return found


def _is(process: Process | None, ticks: int) -> bool:
    return process is not None and process.ticks == ticks
