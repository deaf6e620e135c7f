"""Prints documents, fields and tables to standard output, and remarks to standard error.

Invariants: colour and truncation only on a terminal (no colour with NO_COLOR or TERM=dumb); output to a pipe or file
is complete, aligned with spaces, with times in RFC 3339; with --json standard output is one document and nothing else.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from runnerd.cli.text import clean, format_local, format_relative
from runnerd.control.client import Json

_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}
_NARROWEST = 12
_OWN = re.compile(rf"(\x1b\[(?:0|{'|'.join(_STYLES.values())})m)")
# What a terminal might obey or would not show, in JSON: the line breaks of the layout stay.
_UNSHOWN = re.compile(r"[^\n -~\u00a1-\u00ac\u00ae-\u02ff]")


class Cell(NamedTuple):
    text: str
    style: str | None = None


class Column(NamedTuple):
    """On a narrow terminal `flexible` columns are cut; where that is not enough, `spare` ones are left out first."""

    title: str
    flexible: bool = False
    right: bool = False
    spare: bool = False


class Console:
    """Prints for one call; `width` is in characters, None when standard output is not a terminal."""

    def __init__(self, *, json: bool, width: int | None, colour: bool) -> None:
        self.json = json
        self.width = width
        self.colour = colour
        self.now = time.time()

    @classmethod
    def of_process(cls, environ: Mapping[str, str], *, json: bool) -> Console:
        width = None
        if sys.stdout.isatty():
            try:
                width = int(environ.get("COLUMNS") or os.get_terminal_size(1).columns) or 80
            except (OSError, ValueError):
                width = 80
        plain = environ.get("NO_COLOR") or environ.get("TERM") == "dumb"
        return cls(json=json, width=width, colour=width is not None and not plain)

    def print_document(self, document: Json) -> None:
        print(_UNSHOWN.sub(_escape, json.dumps(document, indent=2, ensure_ascii=False)))

    def print_line(self, text: str = "") -> None:
        """Print a line with the colours of `paint`; any other control character becomes a question mark."""
        if not text.isprintable():
            parts = _OWN.split(text) if self.colour else [text]
            text = "".join(part if _OWN.fullmatch(part) else clean(part) for part in parts)
        print(text)

    def print_remark(self, text: str) -> None:
        print(clean(text), file=sys.stderr, flush=True)

    def paint(self, text: str, style: str | None) -> str:
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if self.colour and style and text else text

    def when(self, stamp: str | None) -> str:
        """Format a time for a table cell: relative on a terminal, else as it is."""
        if not stamp:
            return "-"
        return clean(stamp) if self.width is None else format_relative(stamp, self.now, units=1)

    def when_in_full(self, stamp: str | None) -> str:
        """Format a time for a line of its own: local and relative on a terminal, else as it is."""
        if not stamp:
            return "-"
        return clean(stamp) if self.width is None else f"{format_local(stamp)} ({format_relative(stamp, self.now)})"

    def print_fields(self, pairs: Sequence[tuple[str, str | Cell | None]]) -> None:
        """Print aligned `key: value` lines, without those that have no value."""
        shown = [(key, _cell(value)) for key, value in pairs if value not in (None, "")]
        indent = max((len(key) for key, _ in shown), default=0) + 2
        for key, cell in shown:
            self.print_line(f"{key + ':':<{indent}}{self.paint(cell.text, cell.style)}")

    def print_table(self, columns: Sequence[Column], rows: Sequence[Sequence[str | Cell]]) -> None:
        cells = [[Cell(column.title, "bold") for column in columns]]
        cells += [[_cell(value) for value in row] for row in rows]
        widths = [max(len(row[i].text) for row in cells) for i in range(len(columns))]
        if self.width is not None:
            widths = _fit(widths, columns, self.width)
        shown = [i for i, width in enumerate(widths) if width]
        for row in cells:
            self.print_line(self._row([row[i] for i in shown], [columns[i] for i in shown], [widths[i] for i in shown]))

    def _row(self, row: Sequence[Cell], columns: Sequence[Column], widths: Sequence[int]) -> str:
        room = self.width
        parts = []
        for cell, column, width in zip(row, columns, widths, strict=True):
            text = cell.text if len(cell.text) <= width else cell.text[: width - 1] + "~"
            last = column is columns[-1]
            text = text.rjust(width) if column.right else text if last else text.ljust(width)
            if room is not None:
                text = text[: max(room, 0)]
                room -= len(text) + 2
            parts.append(self.paint(text, cell.style))
        return "  ".join(parts).rstrip()


def _escape(match: re.Match[str]) -> str:
    """Write one character as JSON's escape unless it can be shown."""
    return match[0] if match[0].isprintable() else json.dumps(match[0])[1:-1]


def _cell(value: str | Cell | None) -> Cell:
    return value if isinstance(value, Cell) else Cell(clean(value))


def _fit(widths: Sequence[int], columns: Sequence[Column], room: int) -> list[int]:
    """Narrow the columns until they fit into `room` characters, if they can; a width of 0 leaves a column out."""
    fitted = list(widths)
    least = [min(w, _NARROWEST) if c.flexible else w for w, c in zip(widths, columns, strict=True)]
    for i in reversed(range(len(columns))):
        if columns[i].spare and _total(least) > room:
            fitted[i] = least[i] = 0
    while _total(fitted) > room:
        widest = max(range(len(columns)), key=lambda i: fitted[i] - least[i])
        if fitted[widest] == least[widest]:
            break
        fitted[widest] -= 1
    return fitted


def _total(widths: Sequence[int]) -> int:
    shown = [width for width in widths if width]
    return sum(shown) + 2 * (len(shown) - 1)
