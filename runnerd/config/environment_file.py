"""Reads an environment file by the rules of systemd's `EnvironmentFile=` (systemd.exec(5)).

Pure. Blank lines, comments (`#`, `;`) and lines without `=` are skipped, as systemd does; a leading `export ` is
allowed. An unclosed quote, an impossible name and a NUL are errors, because a flow would run with half its settings. No
message quotes the file, which holds secrets and may be any file of this host.
"""

from __future__ import annotations

import re

from runnerd.core.errors import ConfigError
from runnerd.core.place import Place, Problem

ENVIRONMENT_FILE_MAX_BYTES = 2**20  # far more than the kernel passes to a program

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_EXPORT = re.compile(r"export[ \t]+(?==|[^=]*=)")
_BLANK = " \t\r"


def parse_environment_file(text: str, *, file: str = "environment file") -> dict[str, str]:
    """Parse the variables, in the order of the file; the last of a name wins. Raises ConfigError with the line."""
    scan = _Scan(text.removeprefix("\ufeff"), file)
    variables: dict[str, str] = {}
    while not scan.ended:
        entry = scan.entry()
        if entry is not None:
            variables.pop(entry[0], None)
            variables[entry[0]] = entry[1]
    return variables


class _Scan:
    """Scans the text from start to end."""

    def __init__(self, text: str, file: str) -> None:
        self._text = text
        self._file = file
        self._at = 0
        nul = text.find("\0")
        if nul >= 0:
            raise self._error("a NUL character, which no variable can have; remove it", nul)

    @property
    def ended(self) -> bool:
        return self._at >= len(self._text)

    def entry(self) -> tuple[str, str] | None:
        """Scan the next line: return its name and value, or None for a line that is not an assignment."""
        start = self._skip_blank(self._at)
        if self._text.startswith(("#", ";"), start):
            self._at = self._end_of_line(start) + 1
            return None
        end = self._end_of_line(start)
        equals = self._text.find("=", start, end)
        if equals < 0:
            self._at = end + 1
            return None
        name = _EXPORT.sub("", self._text[start : equals + 1], count=1)[:-1].rstrip(_BLANK)
        if not _NAME.fullmatch(name):
            raise self._error("what is before the '=' is not a variable's name; write NAME=value", start)
        self._at = self._skip_blank(equals + 1)
        return name, self._value()

    def _value(self) -> str:
        """Scan a value: quoted pieces may be joined (`'a'"b"`); quotes inside an unquoted value are literal."""
        out: list[str] = []
        while (quote := self._text[self._at : self._at + 1]) in ("'", '"') and quote:
            out.append(self._quoted(quote))
            self._at = self._skip_blank(self._at)
        return "".join(out) + self._unquoted()

    def _quoted(self, quote: str) -> str:
        opened = self._at
        out: list[str] = []
        at = opened + 1
        while at < len(self._text):
            char = self._text[at]
            if char == quote:
                self._at = at + 1
                return "".join(out)
            if char == "\\" and quote == '"' and at + 1 < len(self._text):
                after = self._text[at + 1]
                out.append("" if after == "\n" else after if after in '"\\`$' else char + after)
                at += 2
                continue
            out.append(char)
            at += 1
        raise self._error("the quote opened here is never closed", opened)

    def _unquoted(self) -> str:
        out: list[str] = []
        length = 0  # of `out` without trailing blanks
        text, at = self._text, self._at
        while at < len(text) and text[at] != "\n":
            char = text[at]
            if char == "\\" and at + 1 < len(text):
                at += 1
                if text[at] != "\n":
                    out.append(text[at])
                    length = len(out)
            else:
                out.append(char)
                length = length if char in _BLANK else len(out)
            at += 1
        self._at = at + 1
        return "".join(out[:length])

    def _skip_blank(self, at: int) -> int:
        while at < len(self._text) and self._text[at] in _BLANK:
            at += 1
        return at

    def _end_of_line(self, at: int) -> int:
        end = self._text.find("\n", at)
        return len(self._text) if end < 0 else end

    def _error(self, message: str, at: int) -> ConfigError:
        line = self._text.count("\n", 0, at) + 1
        column = at - (self._text.rfind("\n", 0, at) + 1) + 1
        return ConfigError([Problem(message=message, place=Place(self._file, line, column))])
