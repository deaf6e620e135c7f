"""What stays in force of the last good configuration when a file is broken now.

Pure. A deployment whose item is broken keeps its last good version, matched by file and name; of a file that cannot be
read at all, or that has an item without a name, everything it last said stays that is not said anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from runnerd.config.deployments import Item
from runnerd.model import Config, Deployment, InvalidDeployment, Problem

Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class FileItems:
    """The items of one file; `problem` is set when the list itself cannot be read, and then there are none."""

    path: str
    items: Sequence[Item] = ()
    problem: Problem | None = None


def keys_of(deployment: Deployment) -> frozenset[Key]:
    """What makes two deployments one: their name, with the code they are for or with the flow's name where stated."""
    by_code = (deployment.name, deployment.entrypoint, deployment.run.working_directory)
    by_flow = (deployment.name, deployment.flow_name, "") if deployment.flow_name else by_code
    return frozenset((by_code, by_flow))


def without_doubles(files: Iterable[FileItems]) -> list[FileItems]:
    """The same, where a deployment that an earlier place already has is a problem of the later place."""
    first: dict[Key, Item] = {}
    return [replace(file, items=[_unless_double(item, first) for item in file.items]) for file in files]


def _unless_double(item: Item, first: dict[Key, Item]) -> Item:
    if item.deployment is None:
        return item
    keys = keys_of(item.deployment)
    earlier = next((first[key] for key in keys if key in first), None)
    if earlier is None:
        first.update(dict.fromkeys(keys, item))
        return item
    flow = item.deployment.flow_name or item.deployment.entrypoint
    message = f"deployment {item.name!r} of {flow} stands here and at {earlier.place}; rename or remove one"
    return replace(item, deployment=None, problems=(Problem(message=message, place=item.place, deployment=item.name),))


def settle(
    files: Sequence[FileItems], last_good: Config | None, unseen_folder: str | None
) -> tuple[tuple[Deployment, ...], tuple[InvalidDeployment, ...]]:
    """The deployments in force, and those that cannot be.

    `unseen_folder` is the drop-in directory when it could not be listed: all that was in it stays.
    """
    good = [item.deployment for file in files for item in file.items if item.deployment is not None]
    live = frozenset(key for deployment in good for key in keys_of(deployment))
    before = last_good.deployments if last_good else ()
    deployments: list[Deployment] = []
    invalid: list[InvalidDeployment] = []
    for file in files:
        deployments += [item.deployment for item in file.items if item.deployment is not None]
        kept = _kept(file, [old for old in before if old.place.file == file.path], live)
        deployments += kept
        names = {old.name for old in kept}
        invalid += [
            InvalidDeployment(name=item.name, place=item.place, problem=str(item.problems[0]))
            for item in file.items
            if item.deployment is None and (item.name is None or item.name not in names)
        ]
    if unseen_folder is not None:
        problem = f"{unseen_folder} cannot be listed"
        unseen = [old for old in before if old.place.file.startswith(f"{unseen_folder}/")]
        deployments += [replace(old, problem=problem) for old in unseen if live.isdisjoint(keys_of(old))]
    return tuple(deployments), tuple(invalid)


def _kept(file: FileItems, before: Iterable[Deployment], live: frozenset[Key]) -> list[Deployment]:
    """The last good versions of what is broken in `file`, unless the same deployment is good somewhere else now."""
    broken = {item.name: item.problems[0] for item in file.items if item.deployment is None}
    of_all = file.problem or broken.get(None)
    kept = []
    for old in before:
        problem = broken.get(old.name) or of_all
        if problem is not None and live.isdisjoint(keys_of(old)):
            kept.append(replace(old, problem=str(problem)))
    return kept
