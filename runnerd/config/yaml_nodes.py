"""Holds lists and maps of a YAML file, with the places of their keys, values and items."""

from __future__ import annotations

from runnerd.core.place import Json, Place

Mark = tuple[int, int]  # line and column, from 1


class Map(dict[str, Json]):
    """A map with its place, those of its keys and values, and the spelling of values that are not text."""

    __slots__ = ("at", "file", "keys_at", "spelling", "values_at")

    def __init__(self, file: str, at: Mark) -> None:
        super().__init__()
        self.file = file
        self.at = at
        self.keys_at: dict[str, Mark] = {}
        self.values_at: dict[str, Mark] = {}
        self.spelling: dict[str, str] = {}

    def place(self) -> Place:
        return Place(self.file, *self.at)

    def key_place(self, key: str) -> Place:
        """Return the place of the key, or of the map when there is no such key."""
        return Place(self.file, *self.keys_at.get(key, self.at))

    def value_place(self, key: str) -> Place:
        return Place(self.file, *self.values_at.get(key, self.at))


class List(list[Json]):
    """A list with its place and those of its items."""

    __slots__ = ("at", "file", "items_at")

    def __init__(self, file: str, at: Mark) -> None:
        super().__init__()
        self.file = file
        self.at = at
        self.items_at: list[Mark] = []

    def place(self) -> Place:
        return Place(self.file, *self.at)

    def item_place(self, index: int) -> Place:
        return Place(self.file, *self.items_at[index])


def make_plain(node: Json) -> Json:
    """Copy the value into ordinary dicts and lists, without places."""
    if isinstance(node, dict):
        return {key: make_plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [make_plain(item) for item in node]
    return node
