"""What stays in force of the last good configuration when a file is broken now.

Pure. An entry that is broken keeps its last good version, matched by file and name; of a file that cannot be read at
all, or that has an entry without a name, everything it last said stays that is not said anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from runnerd.config.entries import FileItems, Item, Key, Kind, T
from runnerd.config.messages import Flaw


def without_doubles(kind: Kind[T], files: Iterable[FileItems[T]]) -> list[FileItems[T]]:
    """The same, where an entry that an earlier place already has is a problem of the later place."""
    first: dict[Key, Item[T]] = {}
    return [replace(file, items=[_unless_double(kind, item, first) for item in file.items]) for file in files]


def _unless_double(kind: Kind[T], item: Item[T], first: dict[Key, Item[T]]) -> Item[T]:
    if item.good is None:
        return item
    keys = kind.keys(item.good)
    earlier = next((first[key] for key in keys if key in first), None)
    if earlier is None:
        first.update(dict.fromkeys(keys, item))
        return item
    flaw = Flaw((), kind.double(item.good, earlier.place), item.place)
    return replace(item, good=None, problems=(kind.problem(flaw, item.name),))


def settle(
    kind: Kind[T], files: Sequence[FileItems[T]], before: Sequence[T], unseen_folder: str | None
) -> tuple[tuple[T, ...], list[Item[T]]]:
    """What is in force, where `before` was; and the broken entries that nothing is in force for.

    `unseen_folder` is the drop-in directory when it could not be listed: all that was in it stays.
    """
    live = frozenset(key for file in files for item in file.items if item.good for key in kind.keys(item.good))
    in_force: list[T] = []
    invalid: list[Item[T]] = []
    for file in files:
        in_force += [item.good for item in file.items if item.good is not None]
        kept = _kept(kind, file, [old for old in before if old.place.file == file.path], live)
        in_force += kept
        names = {old.name for old in kept}
        invalid += [item for item in file.items if item.good is None and (item.name is None or item.name not in names)]
    if unseen_folder is not None:
        problem = f"{unseen_folder} cannot be listed"
        unseen = [old for old in before if old.place.file.startswith(f"{unseen_folder}/")]
        in_force += [replace(old, problem=problem) for old in unseen if live.isdisjoint(kind.keys(old))]
    return tuple(in_force), invalid


def _kept(kind: Kind[T], file: FileItems[T], before: Iterable[T], live: frozenset[Key]) -> list[T]:
    """The last good versions of what is broken in `file`, unless the same is good somewhere else now."""
    broken = {item.name: item.problems[0] for item in file.items if item.good is None}
    of_all = file.problem or broken.get(None)
    kept = []
    for old in before:
        problem = broken.get(old.name) or of_all
        if problem is not None and live.isdisjoint(kind.keys(old)):
            kept.append(replace(old, problem=str(problem)))
    return kept
