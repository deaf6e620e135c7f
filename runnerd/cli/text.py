"""Formats times, durations, sizes and states for people, and parses durations.

Pure. All text from the control API goes through `clean` before it reaches a terminal: a flow run's name is free text,
and the terminal would execute an escape sequence in it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

from runnerd.control.client import Json

_UNITS_S = {"ms": 0.001, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "hr": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)\s*")


def clean(value: object) -> str:
    """Replace control characters and line breaks with question marks."""
    text = str(value)
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def format_duration(seconds: float, *, units: int = 2) -> str:
    """Format a duration in at most `units` units: 0.4 s, 12 s, 3 min 5 s, 2 h 7 min, 4 d 1 h."""
    if seconds < 9.95:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    left = round(seconds)
    parts: list[tuple[int, str]] = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or parts:
            parts.append((count, unit))
    return " ".join(f"{count} {unit}" for count, unit in parts[:units] if count)


def format_relative(stamp: str, now: float, *, units: int = 2) -> str:
    """Format an RFC 3339 time relative to `now`, in seconds since the epoch: 3 min ago, in 2 h."""
    away = datetime.fromisoformat(stamp).timestamp() - now
    if abs(away) < 1:
        return "now"
    words = format_duration(float(round(abs(away))), units=units)
    return f"in {words}" if away > 0 else f"{words} ago"


def format_local(stamp: str) -> str:
    """Format an RFC 3339 time in this machine's time zone."""
    return datetime.fromisoformat(stamp).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def seconds_taken(run: Json, now: float) -> float | None:
    """Return the seconds from a run's start to its end, or to `now`; None for a run that has not started."""
    if not run["started_at"]:
        return None
    end = datetime.fromisoformat(run["ended_at"]).timestamp() if run["ended_at"] else now
    return max(0.0, end - datetime.fromisoformat(run["started_at"]).timestamp())


def format_size(count: float) -> str:
    """Format bytes in the largest unit that leaves at least 1."""
    for unit in ("B", "K", "M", "G"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 10 else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} T"


def format_api_state(run: Json) -> str:
    """Format a run's state in the API: Completed, or Failed (TimedOut) where the name says more than the type."""
    kind, name = run["api_state"], run.get("api_state_name")
    if not kind:
        return clean(name or "")
    words = clean(kind).capitalize()
    return f"{words} ({clean(name)})" if name and name.lower() != words.lower() else words


def format_phase(run: Json) -> str:
    """Format the run's phase on this host, with the intent where there is one: stopping (cancel)."""
    words = clean(run["phase"] or "waiting")
    return f"{words} ({clean(run['intent'])})" if run["intent"] and words != "done" else words


def format_verdict(run: Json, now: float) -> str:
    """Describe how a run ended: Completed after 12 s; Crashed after 3 s: killed by SIGSEGV."""
    words = format_api_state(run) or "Gone from the API"
    seconds = seconds_taken(run, now)
    if seconds is not None:
        words += f" after {format_duration(seconds)}"
    ending = (run["exit"] or {}).get("words")
    return f"{words}: {clean(ending)}" if ending and run["api_state"] != "COMPLETED" else words


def shorten_ids(ids: Sequence[str]) -> dict[str, str]:
    """Shorten ids to the shortest prefixes, of 8 characters at least, that are all different."""
    length = 8
    while len({i[:length] for i in ids}) < len(set(ids)):
        length += 1
    return {i: i[:length] for i in ids}


def parse_duration(text: str) -> float:
    """Parse a duration such as 90, 10s, 5m or 1h 30min into seconds. Raises ValueError.

    The configuration has its own parser, with all of systemd's units; loading that module is too slow for runnerctl.
    """
    text = text.strip().lower()
    total, at = 0.0, 0
    while at < len(text):
        match = _DURATION.match(text, at)
        if match is None or (match[2] or "s") not in _UNITS_S:
            raise ValueError(f"{text!r} is not a duration; write 90, 10s, 5m, 2h or 1d")
        total += float(match[1]) * _UNITS_S[match[2] or "s"]
        at = match.end()
    if not text:
        raise ValueError("the duration is empty; write 90, 10s, 5m, 2h or 1d")
    return total


def format_count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
