"""Turns one section of a file into typed values that remember where they were written.

A section is read by a table: key in the file -> (name in the result, reader). A reader takes the raw value and returns
the typed one, or raises ValueError with what is wrong. null stands for "not said" and takes away what an earlier file
said. Keys that the schema found fault with are skipped, so that one mistake is told once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from runnerd.config.messages import Flaw, Path
from runnerd.config.yaml_nodes import Map
from runnerd.core.json_words import dotted
from runnerd.core.place import Json, Place
from runnerd.core.settings import FOREVER_S
from runnerd.core.units import parse_duration

Reader = Callable[[Json], Json]
Table = Mapping[str, tuple[str, Reader]]


@dataclass(frozen=True, slots=True)
class Values:
    """What one section says, by the names of the model's fields; a place for each."""

    said: Mapping[str, Json] = field(default_factory=dict)
    places: Mapping[str, Place] = field(default_factory=dict)

    def over(self, base: Values) -> Values:
        """These over `base`: maps merge by key, everything else replaces."""
        said = dict(base.said)
        for name, value in self.said.items():
            below: Json = said.get(name)
            is_map = isinstance(value, dict) and isinstance(below, dict)
            said[name] = {**below, **value} if is_map else value
        return Values(said, {**base.places, **self.places})

    def without(self, name: str) -> Values:
        """The same, not saying `name`."""
        return Values({key: value for key, value in self.said.items() if key != name}, self.places)

    def arguments(self) -> dict[str, Json]:
        """What is said and not taken away, for a dataclass that knows the defaults."""
        return {name: _kept(value) for name, value in self.said.items() if value is not None}


def _kept(value: Json) -> Json:
    if isinstance(value, dict):
        return {key: item for key, item in value.items() if item is not None}
    return value


class Flaws:
    """What the schema found, asked for by path, and what is found after it."""

    def __init__(self, found: Collection[Flaw]) -> None:
        self.all: list[Flaw] = list(found)
        self._exact = {flaw.path for flaw in found}
        self._prefixes = {flaw.path[:n] for flaw in found for n in range(1, len(flaw.path) + 1)}

    def add(self, path: Path, message: str, place: Place | None) -> None:
        self.all.append(Flaw(tuple(path), message, place))

    def at(self, *path: str | int) -> bool:
        """Whether the schema refused the value at `path` or anything in it."""
        return path in self._prefixes

    def any_in(self, *sections: str) -> bool:
        """Whether anything was found wrong in one of these, by the schema or after it."""
        return any(flaw.path[:1] == (section,) for flaw in self.all for section in sections)

    def exactly_at(self, *path: str | int) -> bool:
        return path in self._exact


def read_section(node: Json, table: Table, path: tuple[str | int, ...], flaws: Flaws) -> Values:
    """The section at `path`. Problems go to `flaws`; what has one is left out."""
    if not isinstance(node, Map) or (path and flaws.exactly_at(*path)):
        return Values()
    said: dict[str, Json] = {}
    places: dict[str, Place] = {}
    for key in node:
        if key not in table or flaws.at(*path, key):
            continue
        name, reader = table[key]
        try:
            value = as_written(node, key)
            said[name] = None if value is None else reader(value)
            places[name] = node.value_place(key)
        except ValueError as error:
            flaws.add((*path, key), _sentence(dotted((*path, key)), str(error)), node.value_place(key))
    return Values(said, places)


def _sentence(subject: str, wrong: str) -> str:
    return f"{subject} {wrong}" if wrong.startswith("must ") else f"{subject}: {wrong}"


def as_written(node: Map, key: str) -> Json:
    """The value, but text where YAML made a number of `10:20` (it counts to the base 60)."""
    spelt = node.spelling.get(key, "")
    return spelt if ":" in spelt and not isinstance(node[key], bool) else node[key]


# --- readers ------------------------------------------------------------------------------------------------


def as_is(value: Json) -> Json:
    return value


def whole(value: Json) -> int:
    if not isinstance(value, int):
        raise ValueError(f"{value!r} is not a whole number")
    return value


def line(value: Json) -> str:
    """Text that goes to the operating system: a path, a user's name."""
    text = str(value)
    if any(ord(char) < 32 or ord(char) == 127 for char in text):
        raise ValueError(f"{text!r} has a control character")
    return text


def duration(value: Json) -> float:
    return min(parse_duration(value), FOREVER_S)


def positive_duration(value: Json) -> float:
    seconds = duration(value)
    if seconds <= 0:
        raise ValueError(f"must be more than 0, not {value!r}")
    return seconds


def finite_or_none(value: Json) -> float | None:
    """A duration of which infinity means that there is no limit."""
    seconds = positive_duration(value)
    return None if seconds >= FOREVER_S else seconds


def text_map(value: Json) -> dict[str, str | None]:
    """Variables or headers as they were spelt; None takes one away."""
    found: dict[str, str | None] = {}
    for key, item in value.items():
        text = None if item is None else value.spelling[key] if key in value.spelling else str(item)
        if text is not None and "\0" in text:
            raise ValueError(f"the value of {key!r} has a NUL character")
        found[key] = text
    return found
