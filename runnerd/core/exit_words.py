"""How a run ended, in words that mean something to whoever reads them at night. Pure."""

from __future__ import annotations

import signal
from datetime import UTC, datetime

from runnerd.core.machine import Intent
from runnerd.core.process import Exit

HOST_RESTARTED = "the host restarted"
NOBODY_SAW = "it ended and nobody saw how"


def signal_name(number: int) -> str:
    """SIGTERM for 15; "signal 99" for one this system has no name for."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def duration(seconds: float) -> str:
    """Seconds as systemd writes them: 90 -> 1min 30s."""
    whole = round(seconds, 3)
    if whole < 60:
        return f"{whole:g}s"
    parts = []
    left = round(whole)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts)


def size(count: int) -> str:
    """Bytes as systemd takes them, in the largest unit that divides them: 2147483648 -> 2G."""
    for unit, factor in (("T", 2**40), ("G", 2**30), ("M", 2**20), ("K", 2**10)):
        if count and count % factor == 0:
            return f"{count // factor}{unit}"
    return str(count)


def exit_words(ended: Exit | None, *, memory_max_bytes: int | None = None) -> str:
    """`exited 1`, `killed by SIGSEGV`, `killed: out of memory (memory_max 2G)`."""
    if ended is None:
        return NOBODY_SAW
    if ended.oom:
        bound = f" (memory_max {size(memory_max_bytes)})" if memory_max_bytes else ""
        return f"killed: out of memory{bound}"
    if ended.signal is not None:
        return f"killed by {signal_name(ended.signal)}"
    if ended.code is not None:
        return f"exited {ended.code}"
    return NOBODY_SAW


def ending(
    ended: Exit | None,
    *,
    intent: Intent | None,
    failure: str | None = None,
    runtime_max_s: float | None = None,
    memory_max_bytes: int | None = None,
) -> str:
    """The whole sentence: why it was ended, where it was us, and how it went."""
    if failure is not None:
        return f"could not start: {failure}"
    how = exit_words(ended, memory_max_bytes=memory_max_bytes)
    if intent is Intent.CANCEL:
        return f"cancelled; {how}"
    if intent is Intent.TIMEOUT:
        bound = f" {duration(runtime_max_s)}" if runtime_max_s else ""
        return f"ran longer than runtime_max{bound}; {how}"
    if intent is Intent.EVICT:
        return f"the host was stopped; {how}"
    return how


def time_text(at: datetime | None) -> str | None:
    """RFC 3339 in UTC, to the millisecond."""
    if at is None:
        return None
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
