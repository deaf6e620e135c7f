"""Translates the errors of PyYAML's two parsers into problems with one clear sentence."""

from __future__ import annotations

import re

import yaml
from yaml.reader import Reader

from runnerd.core.place import Place, Problem

# A part of the parsers' message, which is the same in libyaml's and in PyYAML's own -> the message for users.
_WORDS: tuple[tuple[str, str], ...] = (
    (
        "mapping values are not allowed",
        "a ':' is not allowed here; quote a value that has ': ' in it, or check the indentation",
    ),
    ("sequence entries are not allowed", "a list cannot start on the line of its key; put '- ' on a line of its own"),
    ("unknown escape", "an unknown escape; use single quotes, or write \\\\ for a backslash"),
    (
        "invalid Unicode character escape",
        "an escape that is no character, such as one half of a surrogate pair; write the whole character",
    ),
    ("undefined tag handle", "tags (!...) are not allowed here; quote the value if text is meant"),
    ("incompatible YAML document", "this YAML version is not supported; remove the %YAML line"),
    (
        "expected alphabetic or numeric",
        "an anchor (&) or alias (*) without a name; quote a value that starts with & or *",
    ),
    ("node content", "a value is missing here; or a [ or { above is never closed"),
)
_CLOSING = {"}": "{", "]": "["}


def find_refused_character(text: str, file: str) -> Problem | None:
    """Find a control character, which YAML does not allow; None when there is none."""
    match = Reader.NON_PRINTABLE.search(text)
    if match is None:
        return None
    code = f"U+{ord(match[0]):04X}"
    message = f"the character {code} is not allowed in YAML; remove it, or write it as an escape in double quotes"
    return Problem(message=message, place=_place(text, match.start(), file))


def _place(text: str, index: int, file: str) -> Place:
    line_start = text.rfind("\n", 0, index) + 1
    return Place(file, text.count("\n", 0, index) + 1, index - line_start + 1)


def translate_error(error: yaml.YAMLError, text: str, file: str) -> Problem:
    """Translate one error of a parser into a problem."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return Problem(message=f"not valid YAML: {error}", place=Place(file))
    line, column = error.problem_mark.line + 1, error.problem_mark.column + 1
    lines = text.splitlines()
    here = lines[line - 1] if line <= len(lines) else ""
    tab = re.match(r" *\t", here)
    if tab is not None:
        return Problem(message="a tab in the indentation; use spaces", place=Place(file, line, tab.end()))
    opened = error.context_mark
    unclosed = _unclosed(error)
    if unclosed and opened is not None:
        return Problem(message=unclosed, place=Place(file, opened.line + 1, opened.column + 1))
    return Problem(message=_sentence(error, here[column - 1 : column]), place=Place(file, line, column))


def _unclosed(error: yaml.MarkedYAMLError) -> str | None:
    context, problem = error.context or "", error.problem or ""
    if "quoted scalar" in context and "unexpected end" in problem:
        return "the quote opened here is never closed"
    if "flow mapping" in context and "'}'" in problem:
        return "the { opened here is never closed; quote the value if text is meant"
    if "flow sequence" in context and "']'" in problem:
        return "the [ opened here is never closed; quote the value if text is meant"
    return None


def _sentence(error: yaml.MarkedYAMLError, char: str) -> str:
    problem = error.problem or ""
    if "cannot start any token" in problem:
        return f"a value cannot start with {char!r}; quote it"
    for part, words in _WORDS:
        if part in problem:
            return words
    if char in _CLOSING and char:
        return f"there is no open {_CLOSING[char]!r} for this {char!r}; remove it"
    if "expected key" in problem or "expected <block end>" in problem or "'-' indicator" in problem:
        return "this line does not fit the ones above it; keys of one map start in one column, as do the '-' of a list"
    if "<document start>" in problem:
        return "text after the end of the document; one file holds one document"
    context = f" {error.context}" if error.context else ""
    return f"not valid YAML:{context}: {problem}"
