"""Turns jsonschema's errors into sentences an administrator can act on.

A value is named by its path (`run.nice`), what was found is shown shortened, and what would be right comes from the
schema: `x-expect` where a type or pattern needs words, else its own keywords; a misspelt word gets its near match.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from runnerd.config.units import near
from runnerd.config.yaml_nodes import List, Map
from runnerd.core.json_words import TYPES, dotted
from runnerd.core.place import Json, Place, Problem

Path = Sequence[str | int]

_SHOWN = 60


class Flaw(NamedTuple):
    """A problem with the path of what is wrong: a missing key has its map's path, an unknown key its own."""

    path: tuple[str | int, ...]
    message: str
    place: Place | None

    def problem(self, deployment: str | None = None) -> Problem:
        return Problem(message=self.message, place=self.place, deployment=deployment)


def describe(error: Any, node: Json) -> list[Flaw]:
    """The flaws of one jsonschema error about `node`; `Any` because jsonschema brings no types."""
    path: list[str | int] = list(error.absolute_path)
    if error.validator == "additionalProperties":
        return _unknown_keys(error, path, node)
    if error.validator == "required":
        return _missing_keys(error, path, node)
    if "propertyNames" in error.schema_path:
        message = f"{dotted(path)} has the key {show(error.instance)}; a key is {error.schema['x-expect']}"
        return [Flaw((*path, error.instance), message, key_place(node, path, error.instance))]
    words = _SENTENCES.get(error.validator, _other)(error, _spelt(node, path) or show(error.instance))
    subject = dotted(path) or error.schema.get("title", "this")
    return [Flaw(tuple(path), f"{subject} {words}", value_place(node, path))]


def _unknown_keys(error: Any, path: Path, node: Json) -> list[Flaw]:
    known = error.schema["properties"]
    offered = [key for key, schema in known.items() if not schema.get("deprecated")]
    allowed = [re.compile(pattern) for pattern in error.schema.get("patternProperties", ())]
    where = error.schema.get("title") or dotted(path)
    unknown = [key for key in error.instance if key not in known and not any(p.search(key) for p in allowed)]
    return [
        Flaw((*path, key), f"unknown key {key!r} in {where}{_near_key(key, offered)}", key_place(node, path, key))
        for key in unknown
    ]


def _near_key(key: str, known: list[str]) -> str:
    return near(key, known) or near(key.lower().replace("-", "_"), known)


def _missing_keys(error: Any, path: Path, node: Json) -> list[Flaw]:
    """jsonschema reports each missing key by itself, without saying which in a field of its own."""
    key = next(key for key in error.validator_value if error.message.startswith(repr(key)))
    where = error.schema.get("title") or dotted(path)
    return [Flaw(tuple(path), f"{where} needs {key!r}", value_place(node, path))]


def _spelt(node: Json, path: Path) -> str | None:
    """A number or boolean as it was written: 0027 would else be shown as the 23 that YAML makes of it."""
    parent = _parent(node, path) if path else None
    return parent.spelling.get(str(path[-1])) if isinstance(parent, Map) else None


def _wrong_type(error: Any, shown: str) -> str:
    value = error.instance
    expected = error.schema.get("x-expect")
    if expected is None:
        kinds = [error.validator_value] if isinstance(error.validator_value, str) else error.validator_value
        expected = " or ".join(TYPES[kind] for kind in kinds if kind != "null")
    is_bare = isinstance(value, (bool, int, float))
    hint = "; quote it" if is_bare and "text" in expected else ""
    return f"must be {expected}, not {shown}{hint}"


def _out_of_range(error: Any, shown: str) -> str:
    schema = error.schema
    if "minimum" in schema and "maximum" in schema:
        return f"must be between {schema['minimum']} and {schema['maximum']}, not {shown}"
    if "exclusiveMinimum" in schema:
        return f"must be more than {schema['exclusiveMinimum']}, not {shown}"
    return f"must be at least {schema['minimum']}, not {shown}"


def _not_listed(error: Any, shown: str) -> str:
    choices = [choice for choice in error.validator_value if choice is not None]
    hint = near(error.instance, choices) if isinstance(error.instance, str) else ""
    return f"must be one of {', '.join(choices)}, not {shown}{hint}"


def _mismatch(error: Any, shown: str) -> str:
    return f"must be {error.schema['x-expect']}, not {shown}"


def _empty(_error: Any, _shown: str) -> str:
    return "must not be empty"


def _no_items(_error: Any, _shown: str) -> str:
    return "must not be an empty list; name one, or remove the key"


def _other(error: Any, _shown: str) -> str:
    return f"is not right: {error.message[:200]}"


_SENTENCES: dict[str, Callable[[Any, str], str]] = {
    "type": _wrong_type,
    "minimum": _out_of_range,
    "maximum": _out_of_range,
    "exclusiveMinimum": _out_of_range,
    "enum": _not_listed,
    "pattern": _mismatch,
    "minLength": _empty,
    "minItems": _no_items,
}


def show(value: Json) -> str:
    """A value as a message shows it: short, and never the inside of a list or map."""
    if isinstance(value, dict):
        return "a map"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        return f".{value}"
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _parent(node: Json, path: Path) -> Json:
    for part in path[:-1]:
        node = node[part]
    return node


def value_place(node: Json, path: Path) -> Place | None:
    """Where the value at `path` stands."""
    if not path:
        return node.place() if isinstance(node, (Map, List)) else None
    parent, last = _parent(node, path), path[-1]
    if isinstance(parent, Map):
        return parent.value_place(str(last))
    return parent.item_place(last) if isinstance(parent, List) and isinstance(last, int) else None


def key_place(node: Json, path: Path, key: str) -> Place | None:
    """Where `key` of the map at `path` stands."""
    holder = _parent(node, [*path, key])
    return holder.key_place(key) if isinstance(holder, Map) else None
