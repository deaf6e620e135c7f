"""Measures the memory and processor time that a process and its descendants use now.

Invariant: a PID alone identifies nothing, because PIDs are reused; the start time on record must match too.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from runnerd.core.process import Identity


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Resident memory of the process and its descendants in bytes, and their processor time in seconds."""

    memory_bytes: int
    cpu_s: float


def usage_of(identity: Identity, *, boot_id: str) -> Usage | None:
    """Measure the process and its descendants; None when the process has ended or belongs to another boot."""
    import psutil  # here, because it takes 2 MiB that an idle daemon never needs

    if identity.boot_id != boot_id:
        return None
    try:
        leader = psutil.Process(identity.pid)
        # psutil computes the start from the same ticks, in seconds since the epoch, so 2 s allow for rounding; a
        # reused PID started far later than that.
        started = leader.create_time() - psutil.boot_time()
        if abs(started - identity.start_ticks / _ticks_per_second()) > 2.0:
            return None
        lineage = [leader, *leader.children(recursive=True)]
    except psutil.Error:
        return None
    memory, cpu = 0, 0.0
    for process in lineage:
        try:
            times = process.cpu_times()
            memory += process.memory_info().rss
        except psutil.Error:  # ended since it was listed
            continue
        cpu += times.user + times.system
    return Usage(memory_bytes=memory, cpu_s=round(cpu, 2))


def _ticks_per_second() -> int:
    return os.sysconf("SC_CLK_TCK")
