"""Reads the parts of a prefect.yaml that runnerd supports, and refuses parts that would silently have no effect."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from runnerd.config.messages import Path, find_value_place
from runnerd.config.run_settings import read_run
from runnerd.config.sections import Flaws, Table, Values
from runnerd.config.yaml_nodes import List, Map
from runnerd.core.json_words import dotted, show
from runnerd.core.place import Json

_SET_DIRECTORY = (
    "prefect.deployments.steps.set_working_directory",
    "prefect.deployments.steps.pull.set_working_directory",
)
# Templates that `prefect deploy` fills in; any other {{ }} may be the flow's own text.
_TEMPLATE = re.compile(r"\{\{\s*(?:prefect\.|\$)")


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
        flaws.add(path, f"{dotted(path)} must be a map, not {show(step)}", find_value_place(holder, path))
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
            message = f"{dotted(path)} needs a plain directory, not {show(directory)}"
            flaws.add((*path, name), message, step.value_place(name))
        else:
            values = _read_directory(arguments, table, (*path, name), flaws)
    return values


def _read_directory(arguments: Map, table: Table, path: Path, flaws: Flaws) -> Values:
    return read_run(arguments, {"directory": table["working_directory"]}, tuple(path), flaws)


def read_job_variables(deployment: Map, table: Table, flaws: Flaws) -> Values:
    """Read `work_pool.job_variables.env` and `.working_dir`, the process worker's names for two keys of `run:`."""
    pool = deployment.get("work_pool")
    variables = pool.get("job_variables") if isinstance(pool, Map) else None
    names = {"env": table["environment"], "working_dir": table["working_directory"]}
    return read_run(variables, names, ("work_pool", "job_variables"), flaws)


def refuse_unsupported(deployment: Map, flaws: Flaws) -> None:
    """Refuse triggers, SLAs, templates, and numbers that JSON does not have."""
    for key in ("triggers", "sla"):
        if deployment.get(key):
            flaws.add((key,), f"{key}: not supported; remove it, or make an automation", deployment.key_place(key))
    for key in ("parameters", "tags", "entrypoint", "version", "schedules", "schedule", "work_pool"):
        for path, value in _leaves((key,), deployment.get(key)):
            if isinstance(value, str) and _TEMPLATE.search(value):
                message = f"{dotted(path)}: templates are not supported; write the value itself"
                flaws.add(path, message, find_value_place(deployment, path))
            elif isinstance(value, float) and not math.isfinite(value) and not flaws.at(*path):
                message = f"{dotted(path)}: {show(value)} is not a number in JSON; quote it if text is meant"
                flaws.add(path, message, find_value_place(deployment, path))


def _leaves(path: Path, node: Json) -> Iterator[tuple[Path, Json]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _leaves((*path, key), value)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _leaves((*path, index), value)
    else:
        yield path, node
