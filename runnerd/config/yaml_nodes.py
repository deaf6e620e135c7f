"""Lists and maps that remember where they, their keys and their values were written."""

from __future__ import annotations

from runnerd.core.place import Json, Place

Mark = tuple[int, int]  # line and column, from 1


class Map(dict[str, Json]):
    """A map that knows where it, its keys and its values stand, and how a value that is not text was spelt."""

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
        """Where the key stands; the map itself when there is no such key."""
        return Place(self.file, *self.keys_at.get(key, self.at))

    def value_place(self, key: str) -> Place:
        return Place(self.file, *self.values_at.get(key, self.at))


class List(list[Json]):
    """A list that knows where it and its items stand."""

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


def plain(node: Json) -> Json:
    """The same value as ordinary dicts and lists, to keep once the positions are no longer needed."""
    if isinstance(node, dict):
        return {key: plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [plain(item) for item in node]
    return node
