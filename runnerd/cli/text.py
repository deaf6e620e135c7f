"""Values in words for people: times, durations, sizes, states; and one duration the other way.

Pure. Whatever came over the wire goes through `clean` before it reaches a terminal: a flow run's name is free text,
and an escape sequence in it must not be obeyed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

Json = Any
_UNITS_S = {"ms": 0.001, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "hr": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)\s*")


def clean(value: object) -> str:
    """On one line and without control characters."""
    text = str(value)
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def duration(seconds: float, *, units: int = 2) -> str:
    """In at most so many units: 0.4 s, 12 s, 3 min 5 s, 2 h 7 min, 4 d 1 h."""
    if seconds < 9.95:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    left = round(seconds)
    parts: list[tuple[int, str]] = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or parts:
            parts.append((count, unit))
    return " ".join(f"{count} {unit}" for count, unit in parts[:units] if count)


def relative(stamp: str, now: float, *, units: int = 2) -> str:
    """An RFC 3339 time, as seen from `now` (seconds since the epoch): 3 min ago, in 2 h."""
    away = datetime.fromisoformat(stamp).timestamp() - now
    if abs(away) < 1:
        return "now"
    words = duration(float(round(abs(away))), units=units)
    return f"in {words}" if away > 0 else f"{words} ago"


def local(stamp: str) -> str:
    """An RFC 3339 time on the clock of this machine's time zone."""
    return datetime.fromisoformat(stamp).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def took(run: Json, now: float) -> float | None:
    """Seconds from start to end, or until `now`; None for a run that has not started."""
    if not run["started_at"]:
        return None
    end = datetime.fromisoformat(run["ended_at"]).timestamp() if run["ended_at"] else now
    return max(0.0, end - datetime.fromisoformat(run["started_at"]).timestamp())


def size(count: float) -> str:
    """Bytes in the largest unit that leaves at least 1."""
    for unit in ("B", "K", "M", "G"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 10 else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} T"


def api_state(run: Json) -> str:
    """The state in the API: Completed, or Failed (TimedOut) where the name says more than the type."""
    kind, name = run["api_state"], run.get("api_state_name")
    if not kind:
        return clean(name or "")
    words = clean(kind).capitalize()
    return f"{words} ({clean(name)})" if name and name.lower() != words.lower() else words


def phase(run: Json) -> str:
    """What is happening to the run here, and why where that is not plain."""
    words = clean(run["phase"] or "waiting")
    return f"{words} ({clean(run['intent'])})" if run["intent"] and words != "done" else words


def verdict(run: Json, now: float) -> str:
    """How a run that is done came out: Completed after 12 s; Crashed after 3 s: killed by SIGSEGV."""
    words = api_state(run) or "Gone from the API"
    seconds = took(run, now)
    if seconds is not None:
        words += f" after {duration(seconds)}"
    ending = (run["exit"] or {}).get("words")
    return f"{words}: {clean(ending)}" if ending and run["api_state"] != "COMPLETED" else words


def short_ids(ids: Sequence[str]) -> dict[str, str]:
    """The shortest prefixes, 8 characters at least, that tell these ids apart."""
    length = 8
    while len({i[:length] for i in ids}) < len(set(ids)):
        length += 1
    return {i: i[:length] for i in ids}


def seconds_of(text: str) -> float:
    """A duration as systemd reads it: 90, 10s, 5m, 1h 30min. Raises ValueError."""
    text = text.strip().lower()
    total, at = 0.0, 0
    while at < len(text):
        match = _DURATION.match(text, at)
        if match is None or (match[2] or "s") not in _UNITS_S:
            raise ValueError(f"{text!r} is no duration; write 90, 10s, 5m, 2h or 1d")
        total += float(match[1]) * _UNITS_S[match[2] or "s"]
        at = match.end()
    if not text:
        raise ValueError("a duration is missing; write 90, 10s, 5m, 2h or 1d")
    return total


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
