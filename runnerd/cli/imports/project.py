"""Makes a drop-in of a prefect.yaml, whose deployments already have the format of one."""

from __future__ import annotations

import os

from runnerd.cli.imports.found import Found, ImportRefused
from runnerd.config.files import read_text
from runnerd.config.yaml_file import parse_map
from runnerd.config.yaml_nodes import List, Map, make_plain
from runnerd.core.errors import ConfigError
from runnerd.core.place import Json

_NEEDLESS = ("name", "prefect-version", "description", "definitions", "deployments", "pull", "automations")


def import_project(path: str, found: Found) -> None:
    """Add the deployments of the prefect.yaml at `path` to `found`. Raises ImportRefused."""
    try:
        node = parse_map(read_text(path), file=path, or_empty=False)
    except (ConfigError, OSError) as error:
        raise ImportRefused(f"cannot import {path}: {error}") from None
    entries = node.get("deployments")
    if not isinstance(entries, List) or not entries:
        raise ImportRefused(f"cannot import {path}: it has no deployments")
    for key in node:
        if key not in _NEEDLESS and not key.startswith("x-") and node[key]:
            found.leave_out(_place(node, key), f"{key}: {_why(key)}")
    found.automations += make_plain(node.get("automations") or [])
    for index, entry in enumerate(entries):
        if isinstance(entry, Map) and entry.get("entrypoint"):
            found.deployments.append(_entry(entry, node, os.path.dirname(os.path.abspath(path))))
        elif isinstance(entry, Map):
            named = f"the deployment {entry['name']!r}" if entry.get("name") else "a deployment without a name"
            found.leave_out(str(entry.place()), f"{named} has no entrypoint")
        else:
            found.leave_out(_place(node, "deployments"), f"entry {index + 1} of deployments is not a map")


def _place(node: Map, key: str) -> str:
    place = node.key_place(key)
    return f"{place.file}:{place.line}"


def _why(key: str) -> str:
    if key in ("build", "push"):
        return "not run; runnerd takes code from this host: run these steps by hand or in CI"
    return "no key of a drop-in"


def _entry(entry: Map, project: Map, directory: str) -> dict[str, Json]:
    """Copy an entry, with the file's own pull steps, and with the directory from which its entrypoint is reckoned."""
    copied: dict[str, Json] = {key: make_plain(value) for key, value in entry.items() if value is not None}
    if "pull" not in copied and project.get("pull") is not None:
        copied["pull"] = make_plain(project["pull"])
    if not copied.get("pull"):  # else its steps say where the code is
        run = copied.get("run")
        copied["run"] = {"working_directory": directory, **(run if isinstance(run, dict) else {})}
    return copied
