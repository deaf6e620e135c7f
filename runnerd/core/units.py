"""Reads and writes durations and sizes the way systemd does (systemd.time(7)): `1h 30min`, `512M`.

Pure. Each `parse_*` raises ValueError with a sentence that says what would be right; each `format_*` writes what its
`parse_*` reads back to the same value, unless it is asked to round for people.
"""

from __future__ import annotations

import math
import re

INFINITY = "infinity"

# The unit names of systemd.time(7), in microseconds; a month is 30.44 days and a year 365.25 days there.
_MICROSECONDS: dict[str, int] = {
    **dict.fromkeys(("usec", "us", "µs", "μs"), 1),
    **dict.fromkeys(("msec", "ms"), 1_000),
    **dict.fromkeys(("seconds", "second", "sec", "s", ""), 1_000_000),
    **dict.fromkeys(("minutes", "minute", "min", "m"), 60_000_000),
    **dict.fromkeys(("hours", "hour", "hr", "h"), 3_600_000_000),
    **dict.fromkeys(("days", "day", "d"), 86_400_000_000),
    **dict.fromkeys(("weeks", "week", "w"), 604_800_000_000),
    **dict.fromkeys(("months", "month", "M"), 2_629_800_000_000),
    **dict.fromkeys(("years", "year", "y"), 31_557_600_000_000),
}
_NUMBER = r"(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
_UNIT = "(?:" + "|".join(sorted(filter(None, _MICROSECONDS), key=len, reverse=True)) + ")"
# A unit or a blank separates two numbers, so that a long row of digits can be split in one way only.
# Compiled at first use: runnerctl loads this module and rarely parses a duration.
_DURATION = rf"\+?\s*{_NUMBER}(?:(?:\s*{_UNIT}\s*|\s+){_NUMBER})*(?:\s*{_UNIT})?"
_SPAN = rf"([0-9]*)(?:\.([0-9]+))?\s*({_UNIT})?"
_WRITTEN = (
    (86_400_000_000, "d"),
    (3_600_000_000, "h"),
    (60_000_000, "min"),
    (1_000_000, "s"),
    (1_000, "ms"),
    (1, "us"),
)
_LONGEST_US = 2**64 - 1  # systemd counts in 64 bits

_SIZE = r"\s*([0-9]+)(?:\.([0-9]+))?\s*([BKMGTPE]?)\s*"
_SUFFIXES = "BKMGTPE"
_LARGEST = 2**63 - 1

DURATION = "a duration such as 90 (seconds), 10s, 5m, 2h or 1h 30m"
SIZE = "a size such as 512M or 2G"


def parse_duration(value: str | float) -> float:
    """Read a duration into seconds; math.inf for `infinity`. A bare number is seconds. Raises ValueError."""
    if not isinstance(value, str):
        if not 0 <= value <= _LONGEST_US / 1e6:
            raise ValueError(f"{value} is not {DURATION}")
        return float(value)
    text = value.strip()
    if text == INFINITY:
        return math.inf
    if not re.fullmatch(_DURATION, text):
        raise ValueError(f"{value!r} is not {DURATION}")
    total = 0
    for whole, fraction, unit in re.findall(_SPAN, text):
        if whole or fraction:
            total += _scaled(whole, fraction, _MICROSECONDS[unit])
    if total > _LONGEST_US:
        raise ValueError(f"{value!r} is too long for a duration; write infinity for no limit")
    return total / 1e6


def _scaled(whole: str, fraction: str | None, scale: int) -> int:
    if len(whole) > 20:
        return 2**65  # over every bound; int() of a long text takes quadratic time
    digits = (fraction or "")[:18]  # finer than a microsecond or a byte in any unit
    return int(whole or "0") * scale + (int(digits) * scale // 10 ** len(digits) if digits else 0)


def format_duration(seconds: float | None, *, units: int | None = None) -> str:
    """Write a duration: `1h 30min`. Exact to the microsecond, unless `units` says how many units people need.

    Then the duration is rounded: to a tenth of a second below ten seconds, else to whole seconds: `0.4s`, `3min 5s`.
    """
    if seconds is None or math.isinf(seconds):
        return INFINITY
    if units is not None and seconds < 9.95:
        return f"{seconds:.1f}".removesuffix(".0") + "s"
    left = round(seconds * 1e6) if units is None else round(seconds) * 1_000_000
    parts: list[tuple[int, str]] = []
    for scale, unit in _WRITTEN:
        count, left = divmod(left, scale)
        if count or parts:
            parts.append((count, unit))
    return " ".join(f"{count}{unit}" for count, unit in parts[:units] if count) or "0"


def parse_size(value: str | int) -> int | None:
    """Read a size into bytes, with suffixes to the base 1024; None for `infinity`. Raises ValueError."""
    text = str(value).strip()
    if text == INFINITY:
        return None
    match = re.fullmatch(_SIZE, text)
    if match is None:
        raise ValueError(f"{value!r} is not {SIZE}")
    whole, fraction, suffix = match.groups()
    scale: int = 1024 ** _SUFFIXES.index(suffix or "B")
    if fraction and scale == 1:
        raise ValueError(f"{value!r} is not a whole number of bytes")
    size = _scaled(whole, fraction, scale)
    if size > _LARGEST:
        raise ValueError(f"{value!r} is too large for a size; write infinity for no limit")
    return size


def format_size(size: int | None, *, rounded: bool = False) -> str:
    """Write a size in bytes: `512M`, or `1000` where no suffix is exact. Rounded for people: `1000B`, `1.5K`, `50M`."""
    if size is None:
        return INFINITY
    if rounded:
        return _rounded_size(size)
    for power in range(len(_SUFFIXES) - 1, 0, -1):
        if size and size % 1024**power == 0:
            return f"{size // 1024**power}{_SUFFIXES[power]}"
    return str(size)


def _rounded_size(size: float) -> str:
    power = 0
    while size >= 1024:
        size, power = size / 1024, power + 1
    number = f"{size:.0f}" if size >= 10 else f"{size:.1f}".removesuffix(".0")
    return number + _SUFFIXES[power]
