"""Sets up the daemon's own log: lines for a terminal, JSON, or entries of systemd's journal.

Invariant: no secret is passed to a log call; this module redacts nothing.

Two arguments of a log call are for systemd's journal only: `alert` becomes the entry's MESSAGE_ID, and `about` adds
fields that are not in the entry's line.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import FilteringBoundLogger

from runnerd.core.machine import RunRecord
from runnerd.core.place import printable

LogFormat = Literal["auto", "console", "json"]

# syslog's priorities; journald reads them from <N> at the start of a printed line
_PRIORITY = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}


Fields = Mapping[str, str]

# Arguments of log calls whose field is not named RUNNERD_ and the argument.
_FIELDS = {"run": "RUNNERD_RUN_ID"}


def make_log(
    *,
    log_format: LogFormat,
    journald: bool,
    stream: TextIO = sys.stderr,
    debug: bool = False,
    entries: Callable[[Fields], None] | None = None,
) -> Log:
    """Make the daemon's logger.

    `journald`: `stream` is read by journald, which adds the time itself. `entries`: receives entries with fields for
    systemd's journal, instead of lines on `stream`; used with log_format "auto" only.
    """
    if log_format == "json":
        render: Any = structlog.processors.JSONRenderer(default=str)
    else:
        render = _Line(journald=journald and log_format == "auto", colour=stream.isatty())
    native = entries is not None and log_format == "auto"
    ending: list[Any] = [_entry] if native else [_without_fields, render]
    log: Log = structlog.wrap_logger(
        _ToJournal(entries) if native and entries else structlog.PrintLogger(stream),
        processors=[_stamp, structlog.processors.format_exc_info, *ending],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if debug else logging.INFO),
    )
    return log


Log = FilteringBoundLogger
Event = MutableMapping[str, Any]


def about(record: RunRecord) -> dict[str, object]:
    """Make the `about` argument of a log call about this run: fields for systemd's journal that the line lacks."""
    named = {"deployment": record.deployment, "flow": record.flow, "pool": record.pool or "?"}
    known = {key: value for key, value in named.items() if value != "?"}
    return {"run_name": record.name, "phase": record.phase, "attempt": record.attempt, **known}


def _stamp(_: object, method: str, event: Event) -> Event:
    event["level"] = {"exception": "error", "warn": "warning"}.get(method, method)
    # Not "at": callers pass the place of a problem under that name.
    event["time"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
    return event


def _without_fields(_: object, __: str, event: Event) -> Event:
    event.pop("alert", None)
    event.pop("about", None)
    return event


class _ToJournal:
    """Adapts `send` to structlog: the wrapped logger whose methods receive what the last processor returned."""

    def __init__(self, send: Callable[[Fields], None]) -> None:
        self._send = send

    def msg(self, fields: Fields) -> None:
        self._send(fields)

    debug = info = warning = error = critical = msg


def _entry(_: object, __: str, event: Event) -> tuple[tuple[Fields], dict[str, Any]]:
    """Make an entry of systemd's journal: the line, a traceback below it, and a field for each value."""
    level, text, trace = event.pop("level"), event.pop("event"), event.pop("exception", None)
    alert, about_run = event.pop("alert", None), event.pop("about", {})
    del event["time"]
    line = text + _pairs(event)
    fields = {
        "MESSAGE": f"{line}\n{trace}" if trace else line,
        "PRIORITY": str(_PRIORITY.get(level, 6)),
        **({"MESSAGE_ID": str(alert)} if alert else {}),
    }
    values = {key: _words(value) for key, value in {**about_run, **event}.items() if value is not None}
    flow, _slash, name = values.get("deployment", "").rpartition("/")
    if flow:  # "flow/name": split, so that RUNNERD_DEPLOYMENT= has the same value in every entry
        values |= {"flow": flow, "deployment": name}
    fields |= {_FIELDS.get(key, f"RUNNERD_{key.upper()}"): value for key, value in values.items()}
    return (fields,), {}


class _Line:
    """Renders `2026-11-30T12:00:01.123Z info    run run=... phase=...`, or `<6>run run=...` for journald."""

    def __init__(self, *, journald: bool, colour: bool) -> None:
        self._journald = journald
        self._colour = colour

    def __call__(self, _: object, __: str, event: Event) -> str:
        level, time, text = event.pop("level"), event.pop("time"), event.pop("event")
        trace = event.pop("exception", None)
        pairs = _pairs(event)
        if self._journald:
            return _prefixed(_PRIORITY.get(level, 6), f"{text}{pairs}" + (f"\n{trace}" if trace else ""))
        mark = {"warning": "\x1b[33m", "error": "\x1b[31m"}.get(level, "") if self._colour else ""
        line = f"{time} {mark}{level:<7}{chr(27) + '[0m' if mark else ''} {text}{pairs}"
        return f"{line}\n{trace}" if trace else line


def _pairs(event: Event) -> str:
    return "".join(f" {key}={_quote(value)}" for key, value in event.items() if value is not None)


def _prefixed(priority: int, text: str) -> str:
    return "\n".join(f"<{priority}>{line}" for line in text.splitlines())


def _words(value: object) -> str:
    """Write a list of names as people do; JSON has the list itself."""
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _quote(value: object) -> str:
    text = _words(value)
    plain = text and not any(c.isspace() or c in "\"'=" or not c.isprintable() for c in text)
    return text if plain else '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    """Escape one character: a name from the network with a newline in it could forge a line of this log."""
    return "\\" + character if character in '\\"' else printable(character)
