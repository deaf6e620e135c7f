"""Says in one clear sentence what a YAML parser found wrong, whichever of PyYAML's two parsers it was."""

from __future__ import annotations

import re

import yaml
from yaml.reader import Reader

from runnerd.core.place import Place, Problem

# What the parsers say (libyaml's and PyYAML's own wording share these parts) -> what to tell an administrator.
_WORDS: tuple[tuple[str, str], ...] = (
    (
        "mapping values are not allowed",
        "a ':' where none can be; quote a value that holds ': ', or check the indentation",
    ),
    ("sequence entries are not allowed", "a list cannot start on the line of its key; put '- ' on a line of its own"),
    ("unknown escape", "an unknown escape; use single quotes, or write \\\\ for a backslash"),
    ("undefined tag handle", "tags (!...) are not allowed here; quote the value if text is meant"),
    ("incompatible YAML document", "this YAML version is not supported; remove the %YAML line"),
    (
        "expected alphabetic or numeric",
        "an anchor (&) or alias (*) without a name; quote a value that starts with & or *",
    ),
    ("node content", "a value is missing here; or a [ or { above is never closed"),
)
_CLOSING = {"}": "{", "]": "["}


def characters_refused(text: str, file: str) -> Problem | None:
    """YAML allows no control characters; both parsers are given only text that has none."""
    match = Reader.NON_PRINTABLE.search(text)
    if match is None:
        return None
    code = f"U+{ord(match[0]):04X}"
    message = f"the character {code} is not allowed in YAML; remove it, or write it as an escape in double quotes"
    return Problem(message=message, place=_place(text, match.start(), file))


def _place(text: str, index: int, file: str) -> Place:
    line_start = text.rfind("\n", 0, index) + 1
    return Place(file, text.count("\n", 0, index) + 1, index - line_start + 1)


def in_our_words(error: yaml.YAMLError, text: str, file: str) -> Problem:
    """One problem for one parser's error."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return Problem(message=f"not valid YAML: {error}", place=Place(file))
    line, column = error.problem_mark.line + 1, error.problem_mark.column + 1
    lines = text.splitlines()
    here = lines[line - 1] if line <= len(lines) else ""
    tab = re.match(r" *\t", here)
    if tab is not None:
        return Problem(message="a tab in the indentation; YAML wants spaces", place=Place(file, line, tab.end()))
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
        return f"{char!r} closes nothing; there is no {_CLOSING[char]!r} open"
    if "expected key" in problem or "expected <block end>" in problem or "'-' indicator" in problem:
        return "this line does not fit the ones above it; keys of one map start in one column, as do the '-' of a list"
    if "<document start>" in problem:
        return "something stands after the end of the document; one file holds one"
    context = f" {error.context}" if error.context else ""
    return f"not valid YAML:{context}: {problem}"
