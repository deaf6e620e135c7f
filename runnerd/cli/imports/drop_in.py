"""Writes what an import has found as a drop-in that the daemon accepts, with comments on what was left out.

Invariant: what the configuration check of this version refuses in an entry is taken out of the entry and named, so that
an import never writes a key that runnerd does not know; what is wrong with this host, such as a missing user, stays.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import replace

import yaml

from runnerd.cli.imports.found import Found
from runnerd.config import HostDefaults, check
from runnerd.config.script_entries import take_out
from runnerd.core.place import Json, Problem

_ROUNDS_MAX = 50  # each takes out what the last one has found
_LINE = 118


def fit(found: Found, *, defaults: HostDefaults, directory: str) -> list[Problem]:
    """Take out of the entries what is refused, and return the problems that are left.

    The entries are checked with the defaults of the runnerd.yaml in `directory`.
    """
    problems: list[Problem] = []
    for _ in range(_ROUNDS_MAX):
        problems = _check(found, defaults, directory)
        removed = [problem for problem in problems if _take_out(problem, found)]
        if not removed:
            break
    return problems


def _check(found: Found, defaults: HostDefaults, directory: str) -> list[Problem]:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "import.yaml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(_dump(_document(found)))
        _, problems = check(path, defaults=defaults, directory=directory)
        return [replace(problem, place=None) for problem in problems]


def _take_out(problem: Problem, found: Found) -> bool:
    """Take the key of a problem out of its deployment, and note it; False if the entry needs it."""
    entry = next((one for one in found.deployments if one.get("name") == problem.deployment), None)
    removed = take_out(entry, problem) if entry is not None else None
    if removed is None:
        return False
    text = yaml.safe_dump(removed.value, default_flow_style=True, sort_keys=False, width=10**6)
    shown = text.removesuffix("...\n").strip()
    found.leave_out(f"deployment {problem.deployment}", f"{removed.key}: {shown} ({removed.why})")
    return True


def write_text(found: Found, *, origin: str) -> str:
    """Write the drop-in of what was found in `origin`."""
    lines = [f"# Written by runnerctl import, of {_one_line(origin)}."]
    if found.left_out:
        lines.append("# Not carried over:")
        lines += [f"#   {_one_line(str(one))}" for one in found.left_out]
    return "\n".join([*lines, _dump(_document(found))])


def _document(found: Found) -> dict[str, Json]:
    lists = {"automations": found.automations, "pools": found.pools, "deployments": found.deployments}
    document: dict[str, Json] = dict(lists)
    return {key: value for key, value in document.items() if value}


def _one_line(text: str) -> str:
    """Put into one line of a comment what came from a file of somebody else's."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


class _Dumper(yaml.SafeDumper):
    """Writes no aliases, and indents lists as people do."""

    def ignore_aliases(self, data: object) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _dump(document: Json) -> str:
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_LINE)


def name_file(origin: str, names: Sequence[str]) -> str:
    """Choose the name of the drop-in: that of the script, unit or directory, of characters that every shell takes."""
    stem = os.path.splitext(os.path.basename(origin))[0]
    if stem == "prefect":
        stem = os.path.basename(os.path.dirname(os.path.abspath(origin)))
    if origin == "-":
        stem = next(iter(names), "crontab")
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '-', stem).strip('-') or 'imported'}.yaml"
