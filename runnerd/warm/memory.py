"""Reads whether this host is short of memory. The files are the kernel's, and answer at once."""

from __future__ import annotations

import re

from runnerd.core.units import format_size

STALLED_PERCENT = 10.0  # of the last 10 s, in which some process waited for memory
_MEMORY, _PRESSURE = "/proc/meminfo", "/proc/pressure/memory"


def find_shortage(*, min_free_bytes: int, memory: str = _MEMORY, pressure: str = _PRESSURE) -> str | None:
    """Say how this host is short of memory, None where it is not or where the kernel does not say."""
    if min_free_bytes <= 0:
        return None
    found = re.search(r"^MemAvailable:\s+([0-9]+) kB$", _read(memory), re.MULTILINE)
    if found is not None and int(found[1]) * 1024 < min_free_bytes:
        free, wanted = format_size(int(found[1]) * 1024, rounded=True), format_size(min_free_bytes, rounded=True)
        return f"{free} of memory are available, less than warm.min_free_memory ({wanted})"
    stalled = re.search(r"^some avg10=([0-9.]+)", _read(pressure), re.MULTILINE)
    if stalled is not None and float(stalled[1]) > STALLED_PERCENT:
        return f"processes wait for memory for {float(stalled[1]):.0f}% of the time"
    return None


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read(65536)
    except OSError:  # an older kernel, or one without pressure stall information
        return ""
