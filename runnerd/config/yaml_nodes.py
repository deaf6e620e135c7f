"""Holds lists and maps of a YAML file, with the places of their keys, values and items."""

from __future__ import annotations

from runnerd.core.place import Json, Place

Mark = tuple[int, int]  # line and column, from 1


class Map(dict[str, Json]):
    """A map with its place, those of its keys and values, and the spelling of values that are not text.

    `insets`: how far behind its place the text of a value begins (1 for a quoted one); None where the text is not in
    the file as it is: escapes, several lines. Values without an entry begin at their place.
    """

    __slots__ = ("at", "file", "insets", "keys_at", "spelling", "values_at")

    def __init__(self, file: str, at: Mark) -> None:
        super().__init__()
        self.file = file
        self.at = at
        self.keys_at: dict[str, Mark] = {}
        self.values_at: dict[str, Mark] = {}
        self.spelling: dict[str, str] = {}
        self.insets: dict[str, int | None] = {}

    def place(self) -> Place:
        return Place(self.file, *self.at)

    def key_place(self, key: str) -> Place:
        """Return the place of the key, or of the map when there is no such key."""
        return Place(self.file, *self.keys_at.get(key, self.at))

    def value_place(self, key: str) -> Place:
        return Place(self.file, *self.values_at.get(key, self.at))

    def note_inset(self, key: str, inset: int | None) -> None:
        """Note an inset; most values have none."""
        if inset != 0:
            self.insets[key] = inset

    def text_place(self, key: str, offset: int) -> Place:
        """Return the place of the character at `offset` in a text value; the value's if the file has no such text."""
        place, inset = self.value_place(key), self.insets.get(key, 0)
        return place if not offset or inset is None else Place(place.file, place.line, place.column + inset + offset)


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
