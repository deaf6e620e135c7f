"""What a run's processes use right now: memory and processor time of the whole session.

Invariant: a pid alone is never believed; a process counts only when its start time is the one on record.
"""

from __future__ import annotations

from dataclasses import dataclass

from runnerd.core.process import Identity


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Resident memory of the process and its descendants in bytes, and their processor time in seconds."""

    memory_bytes: int
    cpu_s: float


def usage_of(identity: Identity, *, boot_id: str) -> Usage | None:
    """What the process and its descendants use; None when it is gone, with its boot or without."""
    import psutil  # here, because an idle daemon never needs its 2 MiB

    if identity.boot_id != boot_id:
        return None
    try:
        leader = psutil.Process(identity.pid)
        # psutil tells the start in seconds since the epoch, from the same ticks: a reused pid is hours away.
        started = leader.create_time() - psutil.boot_time()
        if abs(started - identity.start_ticks / _ticks_per_second()) > 2.0:
            return None
        family = [leader, *leader.children(recursive=True)]
    except psutil.Error:
        return None
    memory, cpu = 0, 0.0
    for process in family:
        try:
            times = process.cpu_times()
            memory += process.memory_info().rss
        except psutil.Error:
            continue
        cpu += times.user + times.system
    return Usage(memory_bytes=memory, cpu_s=round(cpu, 2))


def _ticks_per_second() -> int:
    import os

    return os.sysconf("SC_CLK_TCK")
