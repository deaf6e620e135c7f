"""Finds the placeholders of a prefect.yaml that runnerd cannot fill in, and says what to write instead.

`prefect deploy` replaces `{{ ... }}` once, when a deployment is registered: by blocks, variables, its own environment
and the outputs of build and push steps. runnerd registers on a host that has none of these.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator

from runnerd.config.messages import Path, find_value_place
from runnerd.config.sections import Flaws
from runnerd.config.yaml_nodes import Map
from runnerd.core.json_words import dotted, show_value
from runnerd.core.place import Json, Place

_PLACEHOLDER = re.compile(r"\{\{\s*([\w.\-\[\]$]+)\s*\}\}")  # as in Prefect
_IN_JOBS = ("prefect.", "$", "ctx.")  # what a pool's worker fills in when it starts a run

_KINDS = (
    ("prefect.blocks.", "a block is looked up by prefect deploy only; load it in the flow"),
    ("prefect.variables.", "a variable is looked up by prefect deploy only; write its value, or read it in the flow"),
    ("$", "the environment of prefect deploy is not that of this host; write the value"),
)
_OUTPUT = "it is an output of a build or push step, and runnerd runs none of these; write the value"
_UNKNOWN = "nothing on this host has this name; write the value"

# Text that may be the flow's own, where an unknown placeholder is no placeholder.
_FREE_TEXT = ("parameters", "description")
_CHECKED = (
    *("name", "entrypoint", "flow_name", "version", "tags", "schedules", "schedule", "concurrency_limit"),
    *_FREE_TEXT,
)


def refuse_placeholders(node: Map, outputs: Collection[str], flaws: Flaws) -> None:
    """Refuse the placeholders of a deployment; `outputs` are the ids of the file's build and push steps."""
    for key in _CHECKED:
        for path, text in _texts((key,), node.get(key)):
            _refuse(node, path, text, outputs, flaws, free=key in _FREE_TEXT)
    for path, text in _texts(("triggers",), node.get("triggers")):
        if path[2:3] != ("parameters",):  # the server fills these in, from the event
            allowed = _IN_JOBS if path[2:3] == ("job_variables",) else ()
            _refuse(node, path, text, outputs, flaws, allowed=allowed)
    pool = node.get("work_pool")
    if not isinstance(pool, Map):
        return
    for path, text in _texts(("work_pool",), pool):
        in_job = path[1] == "job_variables" and bool(pool.get("name"))
        _refuse(node, path, text, outputs, flaws, allowed=_IN_JOBS if in_job else ())


def refuse_outputs(holder: Map, outputs: Collection[str], flaws: Flaws) -> None:
    """Refuse outputs of build and push steps in the pull steps of `holder`, which the worker of a pool runs."""
    for path, text in _texts(("pull",), holder.get("pull")):
        _refuse(holder, path, text, outputs, flaws, free=True, allowed=_IN_JOBS)


def refuse_odd_numbers(node: Map, flaws: Flaws) -> None:
    """Refuse the numbers that YAML has and JSON has not: .inf and .nan."""
    for key in ("parameters", "schedules", "schedule", "work_pool", "triggers"):
        for path, place, words in _odd_numbers(node, (key,), node.get(key)):
            if not flaws.at(*path):
                flaws.add(path, f"{dotted(path)}: {words}", place)


def list_odd_numbers(node: Json) -> Iterator[tuple[Place | None, str]]:
    """List the numbers in `node` that JSON has not, each with its place and what is wrong with it."""
    for path, place, words in _odd_numbers(node, (), node):
        yield place, f"{dotted(path)}: {words}" if path else words


def _odd_numbers(root: Json, path: Path, node: Json) -> Iterator[tuple[Path, Place | None, str]]:
    for at, value in _leaves(path, node):
        if isinstance(value, float) and not math.isfinite(value):
            words = f"{show_value(value)} is not a number in JSON; quote it if text is meant"
            yield at, find_value_place(root, at), words


def list_outputs(*holders: Json) -> frozenset[str]:
    """List the ids of the build and push steps of `holders`: a file, and a deployment."""
    found: set[str] = set()
    for holder in holders:
        for section in ("build", "push"):
            steps = holder.get(section) if isinstance(holder, Map) else None
            for step in steps if isinstance(steps, list) else [steps]:
                found.update(_step_ids(step))
    return frozenset(found)


def _step_ids(step: Json) -> Iterator[str]:
    for arguments in step.values() if isinstance(step, dict) else ():
        if isinstance(arguments, dict) and isinstance(arguments.get("id"), str):
            yield arguments["id"]


def _refuse(
    node: Map,
    path: Path,
    text: str,
    outputs: Collection[str],
    flaws: Flaws,
    *,
    free: bool = False,
    allowed: tuple[str, ...] = (),
) -> None:
    """Refuse the placeholders of one text. `free`: unknown ones are the flow's own; `allowed`: beginnings that stay."""
    if flaws.at(*path):
        return
    for name in _PLACEHOLDER.findall(text):
        is_output = re.split(r"[.\[]", name)[0] in outputs
        why = _OUTPUT if is_output else next((why for start, why in _KINDS if name.startswith(start)), None)
        if (free and why is None) or (name.startswith(allowed) and not is_output):
            continue
        message = f"{dotted(path)}: cannot use {{{{ {name} }}}}: {why or _UNKNOWN}"
        flaws.add(path, message, find_value_place(node, path))


def _texts(path: Path, node: Json) -> Iterator[tuple[Path, str]]:
    for at, value in _leaves(path, node):
        if isinstance(value, str):
            yield at, value


def _leaves(path: Path, node: Json) -> Iterator[tuple[Path, Json]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _leaves((*path, key), value)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _leaves((*path, index), value)
    else:
        yield path, node
