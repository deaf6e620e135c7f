"""Finds placeholders of a shell line at which a quoted value would not be one word of the shell. Pure.

A value is put in as shlex.quote writes it, which is safe between words only: inside double quotes or a here-document
the shell would read the value's `$( )` and its quotes as its own. Where this scanner cannot know, it refuses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from runnerd.core.placeholders import PLACEHOLDER

# After these the scanner does not know any more which quotes count; `$(` between words starts words like any other.
_OPAQUE = {"": re.compile(r"`|\$\(\(|\$\{|\$'|\$\"|<<"), '"': re.compile(r"`|\$\(|\$\{")}
_BEFORE_COMMENT = frozenset(" \t\n;&|()")
_WORDS = {"'": "inside single quotes", '"': "inside double quotes", "#": "in a comment"}


def find_unsafe(line: str) -> Iterator[tuple[str, int, str]]:
    """Yield the placeholders at which no value can be put in safely: name, offset, and where that is in words."""
    found = {one.start(): one for one in PLACEHOLDER.finditer(line)}
    quote, opaque, at = "", "", 0
    while at < len(line):
        escapes = line[at] == "\\" and quote in _OPAQUE
        start = at + 1 if escapes else at
        if (one := found.get(start)) is not None:
            where = f"after {opaque}" if opaque else "after a backslash" if escapes else _WORDS.get(quote)
            if where is not None:
                yield one[1], start, where
            at = one.end()
        elif escapes:
            at += 2
        else:
            marker = _OPAQUE[quote].match(line, at) if quote in _OPAQUE else None
            opaque = opaque or (marker[0] if marker is not None else "")
            quote = _next_quote(quote, line[at], before=line[at - 1] if at else "\n")
            at += 1


def _next_quote(quote: str, character: str, *, before: str) -> str:
    """Return which quote is open behind the character; `#` stands for a comment."""
    if quote:
        return "" if character == ("\n" if quote == "#" else quote) else quote
    if character == "#":
        return "#" if before in _BEFORE_COMMENT else ""
    return character if character in _WORDS else ""
