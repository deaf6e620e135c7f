"""Reads the parameters of a new flow run from a file in JSON or YAML. Each fault of the text has its line and column.

YAML reads nearly every JSON, but its own way: NaN as text, and what is no JSON at all as something. So a file whose
name ends in .json has to be JSON, and numbers that JSON does not have are refused in either.
"""

from __future__ import annotations

import json
import sys

from runnerd.cli.call import UsageError
from runnerd.control.client import Json
from runnerd.core.errors import ConfigError
from runnerd.core.strict_json import find_refused, read_json

STDIN = "-"
_FILE_MAX = 1 << 20  # what the daemon accepts in one request


def read_parameter_file(name: str) -> dict[str, Json]:
    """Read the parameters in the file of this name, or in standard input (STDIN). Raises UsageError."""
    shown = "standard input" if name == STDIN else name
    try:
        data = _read_bytes(name)
    except OSError as error:
        raise UsageError(f"cannot read the parameters in {shown}: {error.strerror}") from None
    if len(data) > _FILE_MAX:
        raise UsageError(
            f"cannot use the parameters in {shown}: more than 1 MiB; pass the name of a file that the flow reads"
        )
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        raise _refuse(shown, before, len(before), "the text is not UTF-8 here; save the file as UTF-8") from None
    found = _parse_json(text, shown) if name.endswith(".json") else _parse_either(text, shown)
    if not isinstance(found, dict):
        raise UsageError(f"cannot use the parameters in {shown}: a map of names to values is needed")
    return found


def _read_bytes(name: str) -> bytes:
    if name == STDIN:
        return sys.stdin.buffer.read(_FILE_MAX + 1)
    with open(name, "rb") as file:
        return file.read(_FILE_MAX + 1)


def _parse_json(text: str, shown: str) -> Json:
    try:
        return read_json(text.removeprefix("\ufeff"))
    except json.JSONDecodeError as error:
        raise _refuse(shown, error.doc, error.pos, f"not valid JSON: {error.msg}") from None
    except ValueError as error:
        _refuse_number(text, shown, error)
        _parse_yaml(text, shown)  # which refuses the same, with its place
        raise UsageError(f"cannot read the parameters in {shown}: {error}") from None


def _parse_either(text: str, shown: str) -> Json:
    try:
        return read_json(text)
    except json.JSONDecodeError:
        return _parse_yaml(text, shown)
    except ValueError as error:
        if text.lstrip().startswith("{"):
            _refuse_number(text, shown, error)
        return _parse_yaml(text, shown)


def _refuse_number(text: str, shown: str, error: ValueError) -> None:
    """Raise UsageError with the place of the number that `read_json` refuses, if there is one."""
    at = find_refused(text)
    if at is not None:
        raise _refuse(shown, text, at, str(error)) from None


def _parse_yaml(text: str, shown: str) -> Json:
    from runnerd.config.placeholders import list_odd_numbers  # not at the top, because they are slow to load
    from runnerd.config.yaml_file import parse

    try:
        found = parse(text, file=shown)
    except ConfigError as error:
        raise UsageError(f"cannot read the parameters: {error}") from None
    for place, words in list_odd_numbers(found):
        raise UsageError(f"cannot read the parameters: {place}: {words}")
    return found


def _refuse(shown: str, text: str, at: int, words: str) -> UsageError:
    """Make the error of the character at `at` of `text`."""
    line, column = text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
    return UsageError(f"cannot read the parameters: {shown}:{line}:{column}: {words}")
