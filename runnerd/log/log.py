"""The daemon's own log: one line a transition, for people on a terminal, for machines, and for systemd's journal.

Invariant: nothing secret is ever passed to a log call; this module hides nothing by itself.

Two arguments of a log call are for the journal alone: `alert` says what one alerts on, `about` adds to its fields what
its line need not show.
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

LogFormat = Literal["auto", "console", "json"]

# syslog's numbers, which journald reads from the start of a line
_PRIORITY = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}


Fields = Mapping[str, str]

# Keys of log calls whose field has another name than RUNNERD_ and the key.
_FIELDS = {"run": "RUNNERD_RUN_ID"}


def make_log(
    *,
    log_format: LogFormat,
    journald: bool,
    stream: TextIO = sys.stderr,
    debug: bool = False,
    entries: Callable[[Fields], None] | None = None,
) -> Log:
    """The logger that the whole daemon is given.

    `journald`: what is printed goes to systemd, which adds the time itself. `entries`: takes entries of systemd's
    journal, with fields, instead of lines.
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
    """What the journal is to know of an entry about this run, beyond what its line says."""
    known = {"deployment": record.deployment, "flow": record.flow, "pool": record.pool or "?"}
    unsaid = {key: value for key, value in known.items() if value != "?"}
    return {"run_name": record.name, "phase": record.phase, "attempt": record.attempt, **unsaid}


def _stamp(_: object, method: str, event: Event) -> Event:
    event["level"] = {"exception": "error", "warn": "warning"}.get(method, method)
    # Not "at": that is what callers call the place of a problem.
    event["time"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
    return event


def _without_fields(_: object, __: str, event: Event) -> Event:
    event.pop("alert", None)
    event.pop("about", None)
    return event


class _ToJournal:
    """What a structlog logger writes to."""

    def __init__(self, send: Callable[[Fields], None]) -> None:
        self._send = send

    def msg(self, fields: Fields) -> None:
        self._send(fields)

    debug = info = warning = error = critical = msg


def _entry(_: object, __: str, event: Event) -> tuple[tuple[Fields], dict[str, Any]]:
    """An entry of the journal: the line as it would be printed, a traceback below it, and every value as a field."""
    level, text, trace = event.pop("level"), event.pop("event"), event.pop("exception", None)
    alert, beyond = event.pop("alert", None), event.pop("about", {})
    del event["time"]
    line = text + _pairs(event)
    fields = {
        "MESSAGE": f"{line}\n{trace}" if trace else line,
        "PRIORITY": str(_PRIORITY.get(level, 6)),
        **({"MESSAGE_ID": str(alert)} if alert else {}),
    }
    values = {key: str(value) for key, value in {**beyond, **event}.items() if value is not None}
    flow, _slash, name = values.get("deployment", "").rpartition("/")
    if flow:  # as Prefect writes it; a field that is searched for has to be the same everywhere
        values |= {"flow": flow, "deployment": name}
    fields |= {_FIELDS.get(key, f"RUNNERD_{key.upper()}"): value for key, value in values.items()}
    return (fields,), {}


class _Line:
    """`12:00:01.123 info  run  run=... phase=...`; `<6>run run=...` for journald."""

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


def _quote(value: object) -> str:
    text = str(value)
    plain = text and not any(c.isspace() or c in "\"'=" or not c.isprintable() for c in text)
    return text if plain else '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    """Names come from the network: one that could break its line would let somebody write lines of ours."""
    if character in '\\"':
        return "\\" + character
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
