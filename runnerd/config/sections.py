"""Reads one section of a file into typed values with their places.

A section is read by a table: key in the file -> (name in the result, reader). A reader converts the raw value, or
raises ValueError with what is wrong. null means unset, and unsets the value of an earlier file. Keys in which the
schema found a flaw are skipped, so that one mistake is reported once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from runnerd.config.messages import Flaw, Path
from runnerd.config.yaml_nodes import Map
from runnerd.core.json_words import dotted, show_value
from runnerd.core.names import UNFIT, describe_character
from runnerd.core.place import Json, Place
from runnerd.core.settings import FOREVER_S
from runnerd.core.units import format_duration, parse_duration, parse_size

Reader = Callable[[Json], Json]
Table = Mapping[str, tuple[str, Reader]]


class Misplaced(ValueError):
    """What is wrong with a text value, at `offset` characters from its beginning."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.offset = offset


@dataclass(frozen=True, slots=True)
class Values:
    """The values of one section, by the field names of core/settings.py, and the place of each."""

    values: Mapping[str, Json] = field(default_factory=dict)
    places: Mapping[str, Place] = field(default_factory=dict)

    def over(self, base: Values) -> Values:
        """Merge these values over `base`: maps are merged by key, everything else is replaced."""
        values = dict(base.values)
        for name, value in self.values.items():
            below: Json = values.get(name)
            is_map = isinstance(value, dict) and isinstance(below, dict)
            values[name] = {**below, **value} if is_map else value
        return Values(values, {**base.places, **self.places})

    def without(self, name: str) -> Values:
        """Copy the values without `name`."""
        return Values({key: value for key, value in self.values.items() if key != name}, self.places)

    def arguments(self) -> dict[str, Json]:
        """Return the values that are not unset, as arguments of a dataclass that has the defaults."""
        return {name: _drop_nulls(value) for name, value in self.values.items() if value is not None}


def _drop_nulls(value: Json) -> Json:
    if isinstance(value, dict):
        return {key: item for key, item in value.items() if item is not None}
    return value


class Flaws:
    """The flaws that the schema found, searchable by path, and those found after it."""

    def __init__(self, found: Collection[Flaw]) -> None:
        self.all: list[Flaw] = list(found)
        self.warnings: list[Flaw] = []
        self._exact = {flaw.path for flaw in found}
        self._prefixes = {flaw.path[:n] for flaw in found for n in range(1, len(flaw.path) + 1)}

    def add(self, path: Path, message: str, place: Place | None) -> None:
        self.all.append(Flaw(tuple(path), message, place))

    def warn(self, message: str, place: Place | None) -> None:
        """Note what has no effect, without a flaw: the entry is good."""
        self.warnings.append(Flaw((), message, place))

    def at(self, *path: str | int) -> bool:
        """Return whether the schema found a flaw at `path` or below."""
        return path in self._prefixes

    def any_in(self, *sections: str) -> bool:
        """Return whether one of these sections has a flaw, found by the schema or after it."""
        return any(flaw.path[:1] == (section,) for flaw in self.all for section in sections)

    def exactly_at(self, *path: str | int) -> bool:
        return path in self._exact


def read_section(node: Json, table: Table, path: tuple[str | int, ...], flaws: Flaws) -> Values:
    """Read the section at `path`, without the values that have a flaw, which is added to `flaws`."""
    if not isinstance(node, Map) or (path and flaws.exactly_at(*path)):
        return Values()
    values: dict[str, Json] = {}
    places: dict[str, Place] = {}
    for key in node:
        if key not in table or flaws.at(*path, key):
            continue
        name, reader = table[key]
        try:
            value = as_written(node, key)
            values[name] = None if value is None else reader(value)
            places[name] = node.value_place(key)
        except ValueError as error:
            offset = error.offset if isinstance(error, Misplaced) else 0
            flaws.add((*path, key), sentence(dotted((*path, key)), str(error)), node.text_place(key, offset))
    return Values(values, places)


def sentence(subject: str, wrong: str) -> str:
    """Say what is wrong with `subject`."""
    return f"{subject} {wrong}" if wrong.startswith("must ") else f"{subject}: {wrong}"


def restore_values(path: str, said: Json, names: Collection[str]) -> Values:
    """Restore the values of a section of the file at `path` that have one of `names`; `said` is Values or its JSON."""
    if isinstance(said, Values):
        return said
    document = said if isinstance(said, Mapping) else {}
    found = document.get("values", document.get("said"))
    places = document.get("places")
    if not isinstance(found, Mapping):
        return Values()
    # JSON has no tuples, and no section has a list.
    values = {key: _tuples(value) for key, value in found.items() if key in names}
    where = places if isinstance(places, Mapping) else {}
    return Values(values, {key: _restore_place(path, where.get(key)) for key in values})


def _tuples(value: Json) -> Json:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _restore_place(path: str, place: Json) -> Place:
    match place:
        case {"file": str(file), "line": int(line), "column": int(column)}:
            return Place(file, line, column)
    return Place(path)


def as_written(node: Map, key: str) -> Json:
    """Return the value, but as text where YAML reads `10:20` as a number to the base 60."""
    value, spelt = node[key], node.spelling.get(key, "")
    return spelt if ":" in spelt and isinstance(value, int | float) and not isinstance(value, bool) else value


# --- readers ------------------------------------------------------------------------------------------------


def read_as_is(value: Json) -> Json:
    return value


def read_whole(value: Json) -> int:
    if not isinstance(value, int):
        raise ValueError(f"{value!r} is not a whole number")
    return value


def read_line(value: Json) -> str:
    """Read text for the operating system or a request, such as a path or a URL: no control characters."""
    text = str(value)
    if (found := UNFIT.search(text)) is not None:
        raise ValueError(f"{show_value(text)} has {describe_character(found[0])}; remove it")
    return text


def read_duration(value: Json) -> float:
    return min(parse_duration(value), FOREVER_S)


def make_duration_reader(*, least_s: float, most_s: float = FOREVER_S) -> Reader:
    """Make a reader of durations within these bounds; `infinity` is FOREVER_S."""

    def read(value: Json) -> float:
        seconds = read_duration(value)
        if seconds < least_s:
            raise ValueError(f"must be at least {format_duration(least_s)}, not {value!r}")
        if seconds > most_s:
            raise ValueError(f"must be at most {format_duration(most_s)}, not {value!r}")
        return seconds

    return read


def finite_or_none(reader: Reader) -> Reader:
    """Make a reader that reads as `reader` does, and infinity as None."""

    def read(value: Json) -> float | None:
        seconds: float = reader(value)
        return None if seconds >= FOREVER_S else seconds

    return read


def read_positive_size(value: Json) -> int | None:
    """Read a size of more than 0 bytes, None for infinity."""
    size = parse_size(value)
    if size == 0:
        raise ValueError(f"must be more than 0, not {value!r}")
    return size


def read_finite_size(value: Json) -> int:
    """Read a size that may be 0 and not infinity."""
    size = parse_size(value)
    if size is None:
        raise ValueError(f"must be a size such as 512M, not {value!r}")
    return size


def read_text_map(value: Json) -> dict[str, str | None]:
    """Read variables or headers as they are spelt; None unsets one."""
    found: dict[str, str | None] = {}
    for key, item in value.items():
        text = None if item is None else value.spelling[key] if key in value.spelling else str(item)
        if text is not None and "\0" in text:
            raise ValueError(f"the value of {key!r} has a NUL character")
        found[key] = text
    return found
