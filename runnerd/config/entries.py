"""Reads the entries of a file's lists (deployments, pools, scripts) one by one: a flaw in one affects no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from runnerd.config.messages import Flaw
from runnerd.config.sections import Flaws
from runnerd.config.yaml_nodes import Map
from runnerd.core.place import Json, Place, Problem
from runnerd.core.settings import Deployment, PoolSettings, ScriptSettings

T = TypeVar("T", Deployment, PoolSettings, ScriptSettings)
Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """Deployments, pools or scripts.

    `keys`: two entries with a common key are the same; `double`: describe an entry that an earlier place has already;
    `problem`: make a Problem from a flaw in the entry of that name.
    """

    section: str
    keys: Callable[[T], frozenset[Key]]
    double: Callable[[T, Place], str]
    problem: Callable[[Flaw, str | None], Problem]


@dataclass(frozen=True, slots=True)
class Item(Generic[T]):
    """One entry: `good` is what it declares, None when it has problems; `name` is None if unreadable."""

    name: str | None
    place: Place
    good: T | None
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class FileItems(Generic[T]):
    """The entries of one file; `problem` is set when the list itself cannot be read, and then there are none."""

    path: str
    items: Sequence[Item[T]] = ()
    problem: Problem | None = None

    def found(self) -> Iterator[Problem]:
        """Yield the problems of the entries."""
        for item in self.items:
            yield from item.problems

    def warnings(self) -> Iterator[Problem]:
        """Yield what has no effect in the entries."""
        for item in self.items:
            yield from item.warnings


def read_item(
    kind: Kind[T], node: Json, place: Place, found: Sequence[Flaw], build: Callable[[Map, Flaws], T | None]
) -> Item[T]:
    """Read the entry `node` with the flaws that the schema `found`; `build` adds further flaws and makes the result."""
    flaws = Flaws([flaw._replace(place=flaw.place or place) for flaw in found])
    name = _name(node)
    good = build(node, flaws) if isinstance(node, Map) else None
    problems = tuple(kind.problem(flaw, name) for flaw in sorted(flaws.all, key=_by_place))
    warnings = tuple(kind.problem(flaw, name) for flaw in flaws.warnings)
    return Item(name, place, good if not problems else None, problems, warnings)


def _by_place(flaw: Flaw) -> tuple[int, int]:
    return (flaw.place.line, flaw.place.column) if flaw.place else (0, 0)


def _name(node: Json) -> str | None:
    name = node.get("name", node.get("path")) if isinstance(node, Map) else None  # a script's path is its name
    return name if isinstance(name, str) and name else None
