"""Decides which parts of the last good configuration stay in force when a file is broken now.

Pure. The last good version of a broken entry stays in force, matched by file and name; so does every last good entry
of a file that cannot be read, or that has a broken entry without a name, unless the entry is good elsewhere now.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from runnerd.config.entries import FileItems, Item, Key, Kind, T
from runnerd.config.messages import Flaw


def refuse_doubles(kind: Kind[T], files: Sequence[FileItems[T]], before: Sequence[T] = ()) -> list[FileItems[T]]:
    """Make each entry that another place already has a problem of its own place.

    The entry that was in force `before`, in the same file, is the one that stays; among new entries it is the first.
    """
    stood = {(old.place.file, key) for old in before for key in kind.keys(old)}
    first: dict[Key, Item[T]] = {}
    for only_stood in (True, False):
        for path, item in [(file.path, item) for file in files for item in file.items]:
            keys = kind.keys(item.good) if item.good is not None else frozenset[Key]()
            is_free = not any(key in first for key in keys)
            if is_free and (not only_stood or any((path, key) in stood for key in keys)):
                first.update(dict.fromkeys(keys, item))
    return [replace(file, items=[_refuse_double(kind, item, first) for item in file.items]) for file in files]


def _refuse_double(kind: Kind[T], item: Item[T], first: Mapping[Key, Item[T]]) -> Item[T]:
    if item.good is None:
        return item
    earlier = next((first[key] for key in kind.keys(item.good) if first.get(key, item) is not item), None)
    if earlier is None:
        return item
    flaw = Flaw((), kind.double(item.good, earlier.place), item.place)
    return replace(item, good=None, problems=(kind.problem(flaw, item.name),))


def choose_in_force(
    kind: Kind[T], files: Sequence[FileItems[T]], before: Sequence[T], unseen_folder: str | None
) -> tuple[tuple[T, ...], list[Item[T]]]:
    """Return the entries in force, given those that were in force `before`, and the broken entries without a last good.

    `unseen_folder` is the drop-in directory when it could not be listed: every entry that was in it stays in force.
    """
    live = frozenset(key for file in files for item in file.items if item.good for key in kind.keys(item.good))
    in_force: list[T] = []
    invalid: list[Item[T]] = []
    for file in files:
        in_force += [item.good for item in file.items if item.good is not None]
        last_good = _choose_last_good(kind, file, [old for old in before if old.place.file == file.path], live)
        in_force += last_good
        names = {old.name for old in last_good}
        invalid += [item for item in file.items if item.good is None and (item.name is None or item.name not in names)]
    if unseen_folder is not None:
        problem = f"cannot list {unseen_folder}"
        unseen = [old for old in before if old.place.file.startswith(f"{unseen_folder}/")]
        in_force += [replace(old, problem=problem) for old in unseen if live.isdisjoint(kind.keys(old))]
    return tuple(in_force), invalid


def _choose_last_good(kind: Kind[T], file: FileItems[T], before: Iterable[T], live: frozenset[Key]) -> list[T]:
    """Return the last good versions of the broken entries of `file`, without those that are good elsewhere now."""
    broken = {item.name: item.problems[0] for item in file.items if item.good is None}
    of_all = file.problem or broken.get(None)
    chosen = []
    for old in before:
        problem = broken.get(old.name) or of_all
        if problem is not None and live.isdisjoint(kind.keys(old)):
            chosen.append(replace(old, problem=str(problem)))
    return chosen
