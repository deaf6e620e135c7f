"""Durations, sizes, percentages, rates, limits and signals, read the way systemd reads them (systemd.time(7)).

Pure: text or a number in, a plain number out. Whatever cannot be read raises ValueError with a sentence that says
what would be right. Each `format_*` writes what its `parse_*` reads back to the same value.
"""

from __future__ import annotations

import math
import re
import signal

from runnerd.core.schema_words import near_match

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
# Between two numbers stands a unit or a blank, so that a long row of digits can be split in one way only.
_DURATION = re.compile(rf"\+?\s*{_NUMBER}(?:(?:\s*{_UNIT}\s*|\s+){_NUMBER})*(?:\s*{_UNIT})?")
_SPAN = re.compile(rf"([0-9]*)(?:\.([0-9]+))?\s*({_UNIT})?")
_WRITTEN = (
    (86_400_000_000, "d"),
    (3_600_000_000, "h"),
    (60_000_000, "min"),
    (1_000_000, "s"),
    (1_000, "ms"),
    (1, "us"),
)
_LONGEST_US = 2**64 - 1  # systemd counts in 64 bits

_SIZE = re.compile(r"\s*([0-9]+)(?:\.([0-9]+))?\s*([BKMGTPE]?)\s*")
_SUFFIXES = "BKMGTPE"
_LARGEST = 2**63 - 1

DURATION = "a duration such as 10s, 5m, 2h or 1h 30m"
SIZE = "a size such as 512M or 2G"
PERCENT = "a percentage such as 150%"
RATE = "a rate such as 10/s or 30/m"


def parse_duration(value: str | float) -> float:
    """Seconds; math.inf for `infinity`. A bare number is seconds."""
    if not isinstance(value, str):
        if not 0 <= value <= _LONGEST_US / 1e6:
            raise ValueError(f"{value} is not {DURATION}")
        return float(value)
    text = value.strip()
    if text == INFINITY:
        return math.inf
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{value!r} is not {DURATION}")
    total = 0
    for whole, fraction, unit in _SPAN.findall(text):
        if whole or fraction:
            total += _scaled(whole, fraction, _MICROSECONDS[unit])
    if total > _LONGEST_US:
        raise ValueError(f"{value!r} is too long for a duration; write infinity for no limit")
    return total / 1e6


def _scaled(whole: str, fraction: str | None, scale: int) -> int:
    if len(whole) > 20:
        return 2**65  # over every bound, and nothing to spend quadratic time on
    digits = (fraction or "")[:18]  # finer than a microsecond or a byte in any unit
    return int(whole or "0") * scale + (int(digits) * scale // 10 ** len(digits) if digits else 0)


def format_duration(seconds: float) -> str:
    """`1h 30min`, as systemd writes it; whole microseconds survive."""
    if math.isinf(seconds):
        return INFINITY
    left, words = round(seconds * 1e6), []
    for scale, unit in _WRITTEN:
        count, left = divmod(left, scale)
        if count:
            words.append(f"{count}{unit}")
    return " ".join(words) or "0"


def parse_size(value: str | int) -> int | None:
    """Bytes, with suffixes to the base 1024; None for `infinity`."""
    text = str(value).strip()
    if text == INFINITY:
        return None
    match = _SIZE.fullmatch(text)
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


def format_size(size: int | None) -> str:
    """`512M`; whole bytes survive."""
    if size is None:
        return INFINITY
    for power in range(len(_SUFFIXES) - 1, 0, -1):
        if size and size % 1024**power == 0:
            return f"{size // 1024**power}{_SUFFIXES[power]}"
    return str(size)


def parse_percent(value: str) -> float:
    """150.0 for `150%`, which is one and a half processors where it is a quota."""
    match = re.fullmatch(r"\s*([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*%\s*", value)
    if match is None:
        raise ValueError(f"{value!r} is not {PERCENT}")
    return float(match[1])


def format_percent(percent: float) -> str:
    return f"{percent:.9f}".rstrip("0").rstrip(".") + "%"


_PER = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def parse_rate(value: str | float) -> float:
    """How many a second: `10/s`, `30/m`, `100/h`; a bare number is per second."""
    if not isinstance(value, str):
        value = f"{value:f}/s"
    match = re.fullmatch(r"\s*([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*/\s*(s|m|min|h)\s*", value)
    if match is None:
        raise ValueError(f"{value!r} is not {RATE}")
    return float(match[1]) / _PER[match[2]]


_COUNTS = ("nofile", "nproc")
_SECONDS = ("cpu",)
_BYTES = ("core", "as", "fsize", "memlock", "stack", "data")
RLIMITS: tuple[str, ...] = _COUNTS + _BYTES + _SECONDS
UNLIMITED = -1


def parse_rlimit(name: str, value: str | int) -> tuple[int, int]:
    """(soft, hard) of one of RLIMITS in its own unit (count, bytes, seconds); UNLIMITED is `infinity`."""
    parts = str(value).split(":")
    if len(parts) > 2:
        raise ValueError(f"{value!r} is not a limit; write one number, or soft:hard")
    numbers = [_one_limit(name, part.strip()) for part in parts]
    soft, hard = numbers[0], numbers[-1]
    if hard != UNLIMITED and (soft == UNLIMITED or soft > hard):
        raise ValueError(f"{value!r} has a soft limit above the hard one; write soft:hard")
    return soft, hard


def _one_limit(name: str, text: str) -> int:
    if text == INFINITY:
        return UNLIMITED
    if name in _BYTES:
        return parse_size(text) or 0
    if name in _SECONDS:
        return math.ceil(parse_duration(text))
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise ValueError(f"{text!r} is not a limit; write a number, soft:hard or infinity")
    return int(text)


def parse_signal(value: str | int) -> int:
    """The number of `SIGTERM`, `TERM` or 15. SIGSTOP is refused: a stopped process never ends."""
    text = str(value).strip()
    if re.fullmatch(r"[0-9]{1,3}", text):
        number = int(text)
        if number not in {int(s) for s in signal.valid_signals()}:
            raise ValueError(f"there is no signal {text}")
    else:
        names = {s.name: int(s) for s in signal.Signals}
        full = text if text.upper().startswith("SIG") else f"SIG{text}"
        if full not in names:
            raise ValueError(f"there is no signal {text!r}{near_match(full, names)}")
        number = names[full]
    if number == signal.SIGSTOP:
        raise ValueError("SIGSTOP does not end a process; use SIGTERM, SIGINT or another one that does")
    return number


def format_signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # the real-time ones between SIGRTMIN and SIGRTMAX have no name
        return str(number)
