"""Reads the parameters of a new flow run: from `-p KEY=JSON`, and from a file in JSON or YAML."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

from runnerd.cli.call import UsageError
from runnerd.control.client import Json
from runnerd.core.errors import ConfigError
from runnerd.core.names import HALF, cut
from runnerd.core.strict_json import read_json

STDIN = "-"
_FILE_MAX = 1 << 20  # what the daemon accepts in one request
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")  # of JSON: 007 is a bare word


def read_parameters(pairs: Sequence[str], file: str | None) -> dict[str, Json]:
    """Read the parameters of `file` (STDIN: standard input), and of each KEY=JSON, which win. Raises UsageError."""
    return {**(_read_file(file) if file is not None else {}), **parse_parameters(pairs)}


def parse_parameters(pairs: Sequence[str]) -> dict[str, Json]:
    """Parse each KEY=JSON; a bare word is a string. Raises UsageError, naming the parameter."""
    found = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not key or not equals:
            raise UsageError(f"cannot use -p {cut(pair)!r}: it is not KEY=JSON")
        if key in found:
            raise UsageError(f"cannot set parameter {cut(key)!r} twice; remove one -p")
        if HALF.search(pair):
            raise UsageError(f"cannot use -p {cut(pair)!r}: it is not UTF-8")
        found[key] = _parse_value(key, text)
    return found


def _parse_value(key: str, text: str) -> Json:
    try:
        return read_json(text)
    except ValueError as error:
        if text.lstrip()[:1] in tuple('{["') or _NUMBER.fullmatch(text.strip()):
            raise UsageError(f"cannot read parameter {cut(key)!r} as JSON: {error}") from None
        return text


def _read_file(name: str) -> dict[str, Json]:
    shown = "standard input" if name == STDIN else name
    try:
        text = _read_text(name)
    except OSError as error:
        raise UsageError(f"cannot read the parameters in {shown}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"cannot read the parameters in {shown}: the text is not UTF-8") from None
    if len(text.encode()) > _FILE_MAX:
        raise UsageError(
            f"cannot use the parameters in {shown}: more than 1 MiB; pass the name of a file that the flow reads"
        )
    found = _parse_document(text, shown)
    if not isinstance(found, dict):
        raise UsageError(f"cannot use the parameters in {shown}: a map of names to values is needed")
    return found


def _read_text(name: str) -> str:
    if name == STDIN:
        return sys.stdin.buffer.read(_FILE_MAX + 1).decode()
    with open(name, "rb") as file:
        return file.read(_FILE_MAX + 1).decode()


def _parse_document(text: str, shown: str) -> Json:
    try:
        return read_json(text)
    except ValueError:
        from runnerd.config.yaml_file import parse
    try:
        return parse(text, file=shown)
    except ConfigError as error:
        raise UsageError(f"cannot read the parameters: {error}") from None
