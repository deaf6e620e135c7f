"""Reads the parameters of a new flow run: from `-p KEY=JSON`, and from a file."""

from __future__ import annotations

import re
from collections.abc import Sequence

from runnerd.cli.call import UsageError
from runnerd.cli.parameter_file import read_parameter_file
from runnerd.control.client import Json
from runnerd.core.names import HALF, cut
from runnerd.core.strict_json import read_json

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")  # of JSON: 007 is a bare word


def read_parameters(pairs: Sequence[str], files: Sequence[str]) -> dict[str, Json]:
    """Read the parameters of one file at most, and of each KEY=JSON, which win. Raises UsageError."""
    if len(files) > 1:
        raise UsageError("cannot use --params twice; put all parameters into one file, or set some with -p KEY=JSON")
    return {**(read_parameter_file(files[0]) if files else {}), **parse_parameters(pairs)}


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
