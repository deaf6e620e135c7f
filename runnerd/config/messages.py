"""Turns jsonschema's errors about a configuration file into problems with their places.

A value is named by its path (`run.nice`), a missing or unknown key by the title of the part of the file that has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from runnerd.config.yaml_nodes import List, Map
from runnerd.core.json_words import dotted
from runnerd.core.place import Json, Place, Problem
from runnerd.core.schema_words import describe_fault, is_about_a_key, list_unknown_keys

Path = Sequence[str | int]


class Flaw(NamedTuple):
    """A problem with the path of what is wrong: a missing key has its map's path, an unknown key its own."""

    path: tuple[str | int, ...]
    message: str
    place: Place | None

    def problem(self, deployment: str | None = None) -> Problem:
        key = dotted(self.path) if self.path else None
        return Problem(message=self.message, place=self.place, deployment=deployment, key=key)


def describe(error: Any, node: Json) -> list[Flaw]:
    """List the flaws of one jsonschema error about `node`; `Any` because jsonschema brings no types."""
    path: list[str | int] = list(error.absolute_path)
    if error.validator == "additionalProperties":
        return _unknown_keys(error, path, node)
    # A variable, a header or a URL with a token: more people read messages than the file. "text": only a text is one.
    secret = error.schema.get("x-secret") is True or (
        error.schema.get("x-secret") == "text" and isinstance(error.instance, str)
    )
    words = describe_fault(error, written=_find_spelling(node, path), secret=secret)
    if is_about_a_key(error):
        return [Flaw((*path, error.instance), f"{dotted(path)} {words}", find_key_place(node, path, error.instance))]
    title = _title(error)
    subject = title or dotted(path) if error.validator == "required" else dotted(path) or title or "this"
    return [Flaw(tuple(path), f"{subject} {words}", find_value_place(node, path))]


def _title(error: Any) -> str:
    """Return the title of the part of the file, in messages; that of the whole file says more to editors."""
    title: str = error.schema.get("x-title") or error.schema.get("title", "")
    return title


def _unknown_keys(error: Any, path: Path, node: Json) -> list[Flaw]:
    where = _title(error) or dotted(path)
    return [
        Flaw((*path, key), f"unknown key {key!r} in {where}{hint}", find_key_place(node, path, key))
        for key, hint in list_unknown_keys(error)
    ]


def _find_spelling(node: Json, path: Path) -> str | None:
    """Return a number or boolean as it was written: 0027 would else be shown as the 23 that YAML makes of it."""
    parent = _find_parent(node, path) if path else None
    return parent.spelling.get(str(path[-1])) if isinstance(parent, Map) else None


def _find_parent(node: Json, path: Path) -> Json:
    for part in path[:-1]:
        node = node[part]
    return node


def find_value_place(node: Json, path: Path) -> Place | None:
    """Find the place of the value at `path`."""
    if not path:
        return node.place() if isinstance(node, (Map, List)) else None
    parent, last = _find_parent(node, path), path[-1]
    if isinstance(parent, Map):
        return parent.value_place(str(last))
    return parent.item_place(last) if isinstance(parent, List) and isinstance(last, int) else None


def find_key_place(node: Json, path: Path, key: str) -> Place | None:
    """Find the place of `key` in the map at `path`."""
    holder = _find_parent(node, [*path, key])
    return holder.key_place(key) if isinstance(holder, Map) else None
