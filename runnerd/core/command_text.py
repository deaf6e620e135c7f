"""Fills the parameters of a run into its command's arguments, its environment and its standard input. Pure.

Invariants: a value never becomes more than one argument, and never a part of the shell's syntax; a value is filled in
once, so that `{{ }}` inside a value stays text. What the system cannot pass on is refused in words: Unfit.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence

from runnerd.core.commands import Command
from runnerd.core.json_words import shorten
from runnerd.core.place import Json
from runnerd.core.placeholders import replace_placeholders

VARIABLE_PREFIX = "PARAM_"
TEXT_MAX_BYTES = 128 * 2**10 - 1  # of one argument or variable in Linux, with its end
TOTAL_MAX_BYTES = 512 * 2**10  # of all arguments and variables: the spawner's line has at most 4 MiB, escaped
STDIN_MAX_BYTES = 2**20  # servers take 512 KiB of parameters
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Unfit(ValueError):
    """Means that the command cannot be started with these parameters, and says why in one sentence."""


def effective_parameters(schema: Mapping[str, Json], parameters: Mapping[str, Json]) -> dict[str, Json]:
    """Return the run's parameters, with the schema's defaults for those that the run has not."""
    properties = schema.get("properties")
    known = properties if isinstance(properties, Mapping) else {}
    defaults = {key: one["default"] for key, one in known.items() if isinstance(one, Mapping) and "default" in one}
    return {**defaults, **parameters}


def fill_arguments(command: Command, values: Mapping[str, Json]) -> tuple[str, ...]:
    """Return the command's arguments with its placeholders replaced. Raises Unfit."""

    def value_of(name: str) -> str:
        if name not in values:
            raise Unfit(f"parameter {name!r} of its command has no value")
        text = _text(name, values[name])
        return shlex.quote(text) if command.shell else text

    first, *others = command.argv
    return _bounded((first, *(replace_placeholders(text, value_of) for text in others)))


def make_variables(values: Mapping[str, Json], *, on_stdin: bool) -> dict[str, str]:
    """Return each parameter as the variable PARAM_<NAME>. Raises Unfit.

    `on_stdin`: the command gets all parameters on its standard input, so that one too long for a variable is left out.
    """
    made: dict[str, str] = {}
    names: dict[str, str] = {}
    for name, value in values.items():
        if not _VARIABLE.fullmatch(name):
            raise Unfit(f"parameter {shorten(repr(name))} cannot be a variable: only letters, digits and _ can")
        variable = VARIABLE_PREFIX + name.upper()
        if variable in names:
            raise Unfit(f"parameters {names[variable]!r} and {name!r} would both be the variable {variable}")
        names[variable] = name
        text = _text(name, value)
        if _too_long(f"{variable}={text}"):
            if on_stdin:
                continue
            raise Unfit(f"parameter {name!r} is too long for a variable; set stdin: parameters")
        made[variable] = text
    return made


def write_stdin(values: Mapping[str, Json]) -> bytes:
    """Return the parameters as one JSON object in one line. Raises Unfit."""
    data = json.dumps(values, separators=(",", ":")).encode() + b"\n"
    if len(data) > STDIN_MAX_BYTES:
        raise Unfit(f"its parameters are longer than {STDIN_MAX_BYTES} bytes")
    return data


def check_total(argv: Sequence[str], environment: Mapping[str, str]) -> None:
    """Check that the command's arguments and variables can be passed on together. Raises Unfit."""
    total = sum(len(text.encode(errors="replace")) + 1 for text in argv)
    total += sum(len(f"{key}={text}".encode(errors="replace")) + 1 for key, text in environment.items())
    if total > TOTAL_MAX_BYTES:
        raise Unfit(f"its arguments and variables are longer than {TOTAL_MAX_BYTES} bytes")


def _bounded(argv: tuple[str, ...]) -> tuple[str, ...]:
    for index, text in enumerate(argv):
        if _too_long(text):
            raise Unfit(f"argument {index} of its command is longer than {TEXT_MAX_BYTES} bytes")
    return argv


def _too_long(text: str) -> bool:
    return len(text.encode()) > TEXT_MAX_BYTES


def _text(name: str, value: Json) -> str:
    """Return a text as it is, and JSON for anything else. Raises Unfit for what no argument can have."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if "\0" in text:
        raise Unfit(f"parameter {name!r} has a NUL character, which no argument and no variable can have")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Unfit(f"parameter {name!r} has characters that are not Unicode") from None
    return text
