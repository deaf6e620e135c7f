"""Reads the pull steps of a prefect.yaml, and names the parts of it that have no effect here."""

from __future__ import annotations

from runnerd.config.messages import Path, find_value_place
from runnerd.config.run_settings import read_run
from runnerd.config.sections import Flaws, Table, Values
from runnerd.config.yaml_nodes import List, Map
from runnerd.core.json_words import dotted, show_value
from runnerd.core.place import Json, Problem

_SET_DIRECTORY = (
    "prefect.deployments.steps.set_working_directory",
    "prefect.deployments.steps.pull.set_working_directory",
)
_STEP_KEYS = ("directory", "id")
_IGNORED_OF_SCHEDULES = ("max_active_runs", "catchup")


def read_pull(holder: Map, table: Table, flaws: Flaws) -> Values:
    """Read the working directory that the `pull` steps of `holder` (a deployment or a whole file) set."""
    steps = holder.get("pull")
    values = Values()
    if not steps or flaws.at("pull"):
        return values
    listed = isinstance(steps, List)
    for index, step in enumerate(steps if listed else [steps]):
        path: Path = ("pull", index) if listed else ("pull",)
        values = _read_step(holder, step, path, table, flaws).over(values)
    return values


def _read_step(holder: Map, step: Json, path: Path, table: Table, flaws: Flaws) -> Values:
    if not isinstance(step, Map):
        flaws.add(path, f"{dotted(path)} must be a map, not {show_value(step)}", find_value_place(holder, path))
        return Values()
    values = Values()
    for name, arguments in step.items():
        directory = arguments.get("directory") if isinstance(arguments, Map) else None
        if name not in _SET_DIRECTORY:
            message = (
                f"the pull step {name!r} is not supported, because runnerd runs code that is on this host;"
                " use set_working_directory, or set run.working_directory"
            )
            flaws.add((*path, name), message, step.key_place(name))
        elif not isinstance(directory, str) or "{{" in directory:
            message = f"{dotted(path)} needs a plain directory, not {show_value(directory)}"
            flaws.add((*path, name), message, step.value_place(name))
        else:
            _refuse_step_keys(arguments, (*path, name), flaws)
            values = _read_directory(arguments, table, (*path, name), flaws)
    return values


def _refuse_step_keys(arguments: Map, path: Path, flaws: Flaws) -> None:
    for key in arguments:
        if key not in _STEP_KEYS:
            message = f"{dotted((*path, key))}: not supported, because the step is not run; remove it"
            flaws.add((*path, key), message, arguments.key_place(key))


def _read_directory(arguments: Map, table: Table, path: Path, flaws: Flaws) -> Values:
    return read_run(arguments, {"directory": table["working_directory"]}, tuple(path), flaws)


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
