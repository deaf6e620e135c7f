"""Parses and formats percentages, rates, resource limits and signals as systemd does (systemd.time(7)).

Pure. Each `parse_*` takes text or a number, and raises ValueError with a message that says what would be right. Each
`format_*` writes text that its `parse_*` reads back to the same value.
"""

from __future__ import annotations

import math
import re
import signal

from runnerd.core.schema_words import near_match
from runnerd.core.units import INFINITY, parse_duration, parse_size

PERCENT = "a percentage such as 150%"
RATE = "a rate such as 10/s or 30/m"


def parse_percent(value: str) -> float:
    """Parse a percentage: `150%` is 150.0, one and a half processors in a quota."""
    match = re.fullmatch(r"\s*([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*%\s*", value)
    if match is None:
        raise ValueError(f"{value!r} is not {PERCENT}")
    return float(match[1])


def format_percent(percent: float) -> str:
    return f"{percent:.9f}".rstrip("0").rstrip(".") + "%"


_PER = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def parse_rate(value: str | float) -> float:
    """Parse a rate into a number per second: `10/s`, `30/m`, `100/h`; a bare number is per second."""
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
    """Parse one of RLIMITS into (soft, hard), in its unit: count, bytes or seconds; UNLIMITED for `infinity`."""
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
    """Parse a signal (`SIGTERM`, `TERM` or 15) into its number. SIGSTOP is refused: a stopped process never ends."""
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
        raise ValueError("SIGSTOP does not end a process; use SIGTERM or SIGINT")
    return number


def format_signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # the real-time ones between SIGRTMIN and SIGRTMAX have no name
        return str(number)
