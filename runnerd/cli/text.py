"""Formats times, states and ids for people.

Pure. All text from the control API goes through `clean` before it reaches a terminal: a flow run's name is free text,
and the terminal would execute an escape sequence in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from runnerd.control.client import Json
from runnerd.core.units import format_duration

_INTENTS = {"evict": "host stops", "timeout": "runtime_max"}  # what runnerctl shows for an intent
_EPOCH = datetime(1970, 1, 1)


def clean(value: object) -> str:
    """Replace control characters and line breaks with question marks."""
    text = str(value)
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def format_relative(stamp: str, now: float, *, units: int = 2) -> str:
    """Format an RFC 3339 time relative to `now`, in seconds since the epoch: 3min ago, in 2h."""
    away = _seconds(stamp) - now
    if abs(away) < 1:
        return "now"
    words = format_duration(float(round(abs(away))), units=units)
    return f"in {words}" if away > 0 else f"{words} ago"


def is_past(stamp: str, now: float) -> bool:
    """Whether an RFC 3339 time is before `now`, in seconds since the epoch."""
    return _seconds(stamp) < now


def format_local(stamp: str) -> str:
    """Format an RFC 3339 time in this machine's time zone."""
    try:
        return datetime.fromisoformat(stamp).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
    except (ValueError, OverflowError):  # at the ends of time, where another zone has no date
        return clean(stamp)


def _seconds(stamp: str) -> float:
    """Return the seconds since the epoch of an RFC 3339 time, those of UTC where no zone is given."""
    there = datetime.fromisoformat(stamp)
    offset = there.utcoffset() or timedelta()
    return (there.replace(tzinfo=None) - _EPOCH - offset).total_seconds()


def seconds_taken(run: Json, now: float) -> float | None:
    """Return the seconds from a run's start to its end, or to `now`; None for a run whose flow has not begun.

    Those in which its process waited until the run was due are not counted.
    """
    if not run["started_at"] or run.get("held"):
        return None
    end = _seconds(run["ended_at"]) if run["ended_at"] else now
    due = _seconds(run["due_at"]) if run.get("due_at") else 0.0
    return max(0.0, end - max(_seconds(run["started_at"]), due))


def format_api_state(run: Json) -> str:
    """Format a run's state in the API: Completed, or Failed (TimedOut) where the name says more than the type."""
    kind, name = run["api_state"], run.get("api_state_name")
    if not kind:
        return clean(name or "")
    words = clean(kind).capitalize()
    return f"{words} ({clean(name)})" if name and name.lower() != words.lower() else words


def format_state(run: Json) -> str:
    """Format a run's state in the API; of a run under way, which runnerd has not read yet, the one of its phase."""
    phase = "starting" if run.get("held") else run["phase"]
    return format_api_state(run) or {"starting": "Pending", "running": "Running"}.get(phase, "-")


def format_phase(run: Json) -> str:
    """Format the run's phase on this host, with the intent where there is one: stopping (cancel).

    A run that was started ahead waits, though its process is there.
    """
    if not run.get("here", True):
        return "not on this host"
    if run.get("held") and not run["intent"]:
        return "waiting until due"
    words = clean(run["phase"] or "waiting")
    intent = run["intent"]
    return f"{words} ({clean(_INTENTS.get(intent, intent))})" if intent and words != "done" else words


def format_verdict(run: Json, now: float) -> str:
    """Describe how a run ended: Completed after 12s; Crashed after 3s: killed by SIGSEGV; for a flow, its error."""
    ending = (run["exit"] or {}).get("words")
    if run["api_state"] == "FAILED" and run.get("api_state_message"):
        ending = run["api_state_message"]
    elif ending == "exited 0" and run["api_state"] == "FAILED":
        ending = "the flow failed, and its process exited 0"
    if not run["api_state"] and not run["started_at"] and ending:
        return f"Not started here: {clean(ending)}"
    words = format_api_state(run) or "Gone from the API"
    seconds = seconds_taken(run, now)
    if seconds is not None:
        words += f" after {format_duration(seconds, units=2)}"
    return f"{words}: {clean(ending)}" if ending and run["api_state"] != "COMPLETED" else words


def shorten_ids(ids: Sequence[str]) -> dict[str, str]:
    """Shorten ids to the shortest prefixes, of 8 characters at least, that are all different."""
    length = 8
    while len({i[:length] for i in ids}) < len(set(ids)):
        length += 1
    return {i: i[:length] for i in ids}


def format_running(its: Json, *, of: str = "/") -> str:
    """Format how many runs of a deployment or pool are under way, of how many at most: 1/4, or 0/4 (+1 held).

    A held run has a slot, and waits until the run is due.
    """
    held = its.get("held") or 0
    words = f"{its['running'] - held}" + (f"{of}{its['limit']}" if its["limit"] is not None else "")
    return f"{words} (+{held} held)" if held else words


def format_count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
