"""Reads whether this host is short of memory. The files are the kernel's, and answer at once."""

from __future__ import annotations

import re

from runnerd.core.units import format_size

STALLED_PERCENT = 10.0  # of the last 10 s, in which some process waited for memory
_MEMORY, _PRESSURE = "/proc/meminfo", "/proc/pressure/memory"
_CGROUP = "/sys/fs/cgroup"  # that of the container, if this is one: /proc/meminfo is of the whole machine there too


def find_shortage(
    *, min_free_bytes: int, memory: str = _MEMORY, pressure: str = _PRESSURE, cgroup: str = _CGROUP
) -> str | None:
    """Say how this host is short of memory, None where it is not or where the kernel does not say."""
    if min_free_bytes <= 0:
        return None
    found = re.search(r"^MemAvailable:\s+([0-9]+) kB$", _read(memory), re.MULTILINE)
    rooms = [] if found is None else [int(found[1]) * 1024]
    available = min([*rooms, *_room_in(cgroup)], default=None)
    if available is not None and available < min_free_bytes:
        free, wanted = format_size(available, rounded=True), format_size(min_free_bytes, rounded=True)
        return f"{free} of memory are available, less than warm.min_free_memory ({wanted})"
    stalled = re.search(r"^some avg10=([0-9.]+)", _read(pressure), re.MULTILINE)
    if stalled is not None and float(stalled[1]) > STALLED_PERCENT:
        return f"processes wait for memory for {float(stalled[1]):.0f}% of the time"
    return None


def _room_in(cgroup: str) -> list[int]:
    """Return how much its limit leaves, with what the kernel can drop; nothing where it has no limit."""
    limit, used = _read(f"{cgroup}/memory.max").strip(), _read(f"{cgroup}/memory.current").strip()
    if not limit.isdecimal() or not used.isdecimal():
        return []
    cached = re.search(r"^inactive_file ([0-9]+)$", _read(f"{cgroup}/memory.stat"), re.MULTILINE)
    return [max(0, int(limit) - int(used) + (int(cached[1]) if cached is not None else 0))]


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read(65536)
    except OSError:  # an older kernel, or one without pressure stall information
        return ""
