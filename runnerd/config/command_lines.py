"""Reads commands of the configuration: lists of a program and its arguments, which no shell ever sees."""

from __future__ import annotations

import os
from collections.abc import Sequence

from runnerd.config.sections import read_line
from runnerd.core.place import Json
from runnerd.core.run_placeholders import FIELDS, unknown_placeholder


def read_commands(value: Json) -> tuple[tuple[str, ...], ...]:
    """Read one command, or a list of commands. Raises ValueError."""
    if not value:
        return ()
    kinds = {isinstance(item, list) for item in value}
    if len(kinds) > 1:
        raise ValueError("has texts and lists; write one command as a list of texts, several as a list of such lists")
    return tuple(read_command(one) for one in (value if kinds == {True} else [value]))


def read_command(value: Sequence[Json]) -> tuple[str, ...]:
    """Read one command. Raises ValueError."""
    program = read_line(value[0])
    if "/" in program and not os.path.isabs(program):
        raise ValueError(f"must begin with an absolute path, or a name without '/' to look up in PATH, not {program!r}")
    if unknown_placeholder(program) is not None or "{{" in program:
        raise ValueError("must begin with a program: a placeholder can be in its arguments only")
    for argument in value:
        if "\0" in argument:
            raise ValueError("has an argument with a NUL character; remove it")
        refuse_unknown_placeholder(argument)
    return tuple(value)


def refuse_unknown_placeholder(text: str) -> None:
    """Raise ValueError for a text with a placeholder that is no field of a run."""
    unknown = unknown_placeholder(text)
    if unknown is not None:
        known = ", ".join(f"run.{field}" for field in FIELDS)
        raise ValueError(f"cannot fill in {{{{ {unknown} }}}}; there are {known}")
