"""Reads the pull steps of a prefect.yaml, and names the parts of it that have no effect here."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from runnerd.config.messages import Path, find_value_place
from runnerd.config.run_settings import read_run
from runnerd.config.sections import Flaws, Table, Values
from runnerd.config.yaml_nodes import List, Map, make_plain
from runnerd.core.json_words import dotted, show_value
from runnerd.core.place import Json, Problem

_SET_DIRECTORY = (
    "prefect.deployments.steps.set_working_directory",
    "prefect.deployments.steps.pull.set_working_directory",
)
_STEP_KEYS = ("directory", "id")
_STEP = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)+")
_STEPS_MAX_CHARACTERS = 100_000  # they are passed in one variable, which Linux bounds at 128 KiB
_IGNORED_OF_SCHEDULES = ("max_active_runs", "catchup")


@dataclass(frozen=True, slots=True)
class PullSteps:
    """What the pull steps of a deployment or a file say: a directory, and `steps` that Prefect runs at each start.

    With steps, the directory is one of those that they lead to, in which a pool's flow is inspected.
    """

    values: Values = field(default_factory=Values)
    steps: tuple[Json, ...] | None = None


def read_pull(holder: Map, table: Table, flaws: Flaws) -> PullSteps:
    """Read the `pull` steps of `holder` (a deployment or a whole file).

    Steps that only set a plain directory are not run: the runs have that as their working directory.
    """
    node = holder.get("pull")
    if not node or flaws.at("pull"):
        return PullSteps()
    listed = isinstance(node, List)
    found: list[tuple[Path, str, Json, Map]] = []
    for index, step in enumerate(node if listed else [node]):
        path: Path = ("pull", index) if listed else ("pull",)
        if not isinstance(step, Map) or not step:
            words = f"{dotted(path)} must be a map, not {show_value(step)}"
            flaws.add(path, words, find_value_place(holder, path))
            continue
        found += [((*path, name), name, arguments, step) for name, arguments in step.items()]
        if listed and len(step) > 1:
            second = list(step)[1]
            words = f"{dotted(path)} has more than one step; write each as an item of its own"
            flaws.add((*path, second), words, step.key_place(second))
    plain = [one for one in found if _sets_directory(one[1], one[2])]
    values = _read_directories(plain, table, flaws)
    if len(plain) == len(found):
        return PullSteps(values)
    for path, name, arguments, step in found:
        _check_step(path, name, arguments, step, flaws)
    steps = tuple({name: make_plain(arguments)} for _, name, arguments, _ in found)
    if len(json.dumps(steps, default=str)) > _STEPS_MAX_CHARACTERS:
        flaws.add(("pull",), f"pull: has more than {_STEPS_MAX_CHARACTERS} characters", holder.key_place("pull"))
    return PullSteps(values, steps)


def _sets_directory(name: str, arguments: Json) -> bool:
    """Whether the step does nothing but name a directory that is known beforehand."""
    directory = arguments.get("directory") if isinstance(arguments, Map) else None
    is_plain = isinstance(directory, str) and "{{" not in directory
    return name in _SET_DIRECTORY and is_plain and set(arguments) <= set(_STEP_KEYS)


def _read_directories(found: Sequence[tuple[Path, str, Json, Map]], table: Table, flaws: Flaws) -> Values:
    values = Values()
    for path, _, arguments, _ in found:
        reader = {"directory": table["working_directory"]}
        values = read_run(arguments, reader, tuple(path), flaws).over(values)
    return values


def _check_step(path: Path, name: str, arguments: Json, step: Map, flaws: Flaws) -> None:
    if not _STEP.fullmatch(name):
        words = f"{dotted(path)} is not the name of a step, such as prefect.deployments.steps.git_clone"
        flaws.add(path, words, step.key_place(name))
    elif not isinstance(arguments, Map | None):
        words = f"{dotted(path)} must be a map of the step's arguments, not {show_value(arguments)}"
        flaws.add(path, words, step.value_place(name))
    elif name in _SET_DIRECTORY:
        directory = arguments.get("directory") if isinstance(arguments, Map) else None
        if not isinstance(directory, str):
            words = f"{dotted(path[:-1])} needs a directory, not {show_value(directory)}"
            flaws.add(path, words, step.value_place(name))


def refuse_unsupported(deployment: Map, flaws: Flaws) -> None:
    """Refuse SLAs."""
    if deployment.get("sla"):
        flaws.add(("sla",), "sla: not supported; remove it, or make an automation", deployment.key_place("sla"))


def warn_of_ignored(holder: Map, flaws: Flaws) -> None:
    """Warn of what `holder`, a file or a deployment, says in vain."""
    for key in ("build", "push"):
        if holder.get(key):
            message = f"{key}: not run; runnerd takes code from this host: run these steps by hand or in CI"
            flaws.warn(message, holder.key_place(key))
    if holder.get("version_type") not in (None, "prefect:simple"):
        flaws.warn("version_type has no effect; only the version is registered", holder.key_place("version_type"))
    if holder.get("work_queue_name"):
        message = "work_queue_name has no effect here, as in Prefect; write it into work_pool"
        flaws.warn(message, holder.key_place("work_queue_name"))
    schedules = holder.get("schedules")
    for node in schedules if isinstance(schedules, List) else ():
        for key in _IGNORED_OF_SCHEDULES if isinstance(node, Map) else ():
            if node.get(key):
                flaws.warn(f"{key} of a schedule has no effect: prefect deploy does not send it", node.key_place(key))


def list_warnings(file: Map | None) -> list[Problem]:
    """List what a file says in vain outside its deployments."""
    flaws = Flaws([])
    if file is not None:
        warn_of_ignored(file, flaws)
    return [flaw.problem() for flaw in flaws.warnings]
