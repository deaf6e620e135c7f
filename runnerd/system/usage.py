"""Measures the memory and processor time that the processes of runs use now.

Invariants: a PID alone identifies nothing, because PIDs are reused; the start time on record must match too. However
many runs there are and requests ask, /proc is read once a second at most, and not in the event loop.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from runnerd.core.process import Identity
from runnerd.spawner.cgroups.delegation import mounts, own_path
from runnerd.spawner.cgroups.run_cgroup import RunCgroup, read_lines
from runnerd.spawner.proc.identity import STAT_PARENT, STAT_START_TICKS, read_stat

MAX_AGE_S = 1.0
_FORGOTTEN_AFTER_S = 5.0  # building the documents after a measure takes far less
# Fields of /proc/PID/stat, counted as in spawner/proc/identity.py: own and waited-for children's processor time.
_STAT_CPU = slice(11, 15)
_STAT_REST, _REST_RSS = 20, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Memory in bytes and processor time in seconds of the processes of one run.

    Memory is what the run's cgroup is charged with, except for cached files that it does not use, or else the resident
    memory of the leader and its descendants.
    """

    memory_bytes: int
    cpu_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Leader:
    """The process that a run began with, and the name of the cgroup that the run has where runs have cgroups."""

    identity: Identity
    cgroup: str


Measured = Mapping[Identity, Usage]


class UsageMeter:
    """The usage of live runs, as of the last measure; `measured_at` is its time, None before the first."""

    def __init__(
        self,
        *,
        measure: Callable[[Sequence[Leader]], Measured],
        clock: Callable[[], float],
        now: Callable[[], datetime],
    ) -> None:
        self._measure_now = measure  # in a thread
        self._clock = clock
        self._now = now
        self._usages: Measured = {}
        self._measured_at_s: float | None = None
        self._measuring: asyncio.Task[None] | None = None
        self.measured_at: datetime | None = None

    async def refresh(self, leaders: Iterable[Leader], *, boot_id: str) -> None:
        """Measure, unless that was done within MAX_AGE_S; requests at the same time share one measure."""
        if self._measuring is None:
            if self._is_younger(MAX_AGE_S):
                return
            alive = [leader for leader in leaders if leader.identity.boot_id == boot_id]
            self._measuring = asyncio.create_task(self._measure(alive), name="usage")
        await asyncio.shield(self._measuring)  # a client that goes away must not take the others' measure with it

    async def _measure(self, leaders: Sequence[Leader]) -> None:
        try:
            self._usages = await asyncio.to_thread(self._measure_now, leaders) if leaders else {}
            self._measured_at_s, self.measured_at = self._clock(), self._now()
        finally:
            self._measuring = None

    def _is_younger(self, seconds: float) -> bool:
        return self._measured_at_s is not None and self._clock() - self._measured_at_s <= seconds

    def usage_of(self, identity: Identity) -> Usage | None:
        """Return what the run of this process used at the last measure; None when that is unknown or long ago."""
        return self._usages.get(identity) if self._is_younger(_FORGOTTEN_AFTER_S) else None


def measure_usage(leaders: Sequence[Leader]) -> dict[Identity, Usage]:
    """Measure each run: in its cgroup, or else in one pass over /proc for all of them. Without those that have ended.

    The boot of the identities must be the present one.
    """
    mounted = mounts(_lines("/proc/self/mountinfo"))
    found, without = {}, []
    for leader in leaders:
        pid = leader.identity.pid
        if _Process.read(pid, _ticks_of(leader)) is None:
            continue
        directory = _cgroup_directory(pid, leader.cgroup, mounted)
        usage = _usage_of_cgroup(directory) if directory is not None else None
        if usage is None:
            without.append(leader)
        else:
            found[leader.identity] = usage
    return found | (_usage_by_descent(without) if without else {})


def read_resident_bytes(identity: Identity) -> int | None:
    """Read the resident memory of one process of the present boot, without its children; None once it has ended."""
    process = _Process.read(identity.pid, identity.start_ticks)
    return process.memory_bytes if process is not None else None


# --- by cgroup ----------------------------------------------------------------------------------------------------


def _cgroup_directory(pid: int, name: str, mounted: Sequence[tuple[str, str]]) -> str | None:
    """Return the directory of the process's cgroup `name`; None when the process is in none of this name."""
    above, found, _ = f"{own_path(_lines(f'/proc/{pid}/cgroup')) or ''}/".partition(f"/{name}/")
    if not found:
        return None
    path = f"{above}/{name}"
    for root, mount in mounted:
        within = root.rstrip("/")
        if path.startswith(f"{within}/"):
            directory = mount + path[len(within) :]
            if os.path.isdir(directory):
                return directory
    return None


def _usage_of_cgroup(directory: str) -> Usage | None:
    """Read the usage of a cgroup; None when the kernel does not count processor time in it."""
    used_us = _counts(f"{directory}/cpu.stat").get("usage_usec")
    if used_us is None:
        return None
    cpu_s = round(used_us / 1e6, 2)
    charged = _lines(f"{directory}/memory.current")
    if charged:
        unused = _counts(f"{directory}/memory.stat").get("inactive_file", 0)
        return Usage(memory_bytes=max(0, int(charged[0]) - unused), cpu_s=cpu_s)
    try:
        pids = RunCgroup(directory).list_pids()
    except OSError:
        return None
    processes = (_Process.read(pid) for pid in pids)
    return Usage(memory_bytes=sum(process.memory_bytes for process in processes if process is not None), cpu_s=cpu_s)


def _counts(path: str) -> dict[str, int]:
    return {name: int(value) for name, _, value in (line.partition(" ") for line in _lines(path))}


def _lines(path: str) -> list[str]:
    try:
        return read_lines(path)
    except OSError:  # ended since it was listed, or not ours to read
        return []


# --- by descent ---------------------------------------------------------------------------------------------------


class _Process:
    """One process of a pass over /proc."""

    __slots__ = ("cpu_ticks", "memory_bytes", "parent", "pid", "ticks")

    def __init__(self, pid: int, fields: Sequence[bytes]) -> None:
        self.pid = pid
        self.parent = int(fields[STAT_PARENT])
        self.ticks = int(fields[STAT_START_TICKS])
        self.cpu_ticks = sum(map(int, fields[_STAT_CPU]))
        self.memory_bytes = int(fields[_STAT_REST].split(None, _REST_RSS + 1)[_REST_RSS]) * _PAGE_BYTES

    @classmethod
    def read(cls, pid: int, ticks: int | None = None) -> _Process | None:
        """Read a process; None when it has ended, is a zombie's without memory, or did not start at `ticks`."""
        try:
            fields = read_stat(pid)
        except OSError:
            return None
        process = cls(pid, fields) if fields else None
        return process if process is not None and ticks in (None, process.ticks) else None


def _usage_by_descent(leaders: Iterable[Leader]) -> dict[Identity, Usage]:
    table = {p.pid: p for name in os.listdir("/proc") if name.isdigit() and (p := _Process.read(int(name)))}
    children: dict[int, list[_Process]] = {}
    for process in table.values():
        children.setdefault(process.parent, []).append(process)
    found = {}
    for leader in leaders:
        first = table.get(leader.identity.pid)
        if first is None or first.ticks != _ticks_of(leader):
            continue
        family = [first]
        for process in family:  # grows in the loop
            # A child that is older than its parent was read when the parent's pid was still another process's.
            family += [child for child in children.get(process.pid, ()) if child.ticks >= process.ticks]
        found[leader.identity] = Usage(
            memory_bytes=sum(process.memory_bytes for process in family),
            cpu_s=round(sum(process.cpu_ticks for process in family) / _TICKS_PER_SECOND, 2),
        )
    return found


def _ticks_of(leader: Leader) -> int:
    return leader.identity.start_ticks


_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
