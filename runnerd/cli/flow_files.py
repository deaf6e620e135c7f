"""Looks at the file of a flow for runnerctl add: what it defines, and which interpreter and directory it needs.

Invariant: the file is parsed and never imported: whoever calls runnerctl add may be root.
"""

from __future__ import annotations

import ast
import difflib
import os
import re
import stat
from collections.abc import Iterator
from typing import NamedTuple

from runnerd.cli.call import UsageError
from runnerd.core.errors import RunnerdError
from runnerd.files.regular import read_regular

_FILE_MAX_BYTES = 2**20
_VENVS = (".venv", "venv", "env")
_PROJECT = (".git", "pyproject.toml", "setup.py", "requirements.txt", "prefect.yaml")  # a folder with one is the top
_LEVELS_MAX = 4  # folders in which a venv is sought, the file's own included


class FlowFile(NamedTuple):
    """Where a flow is: the directory that its runs need, the entrypoint in it, and its interpreter, None for none."""

    directory: str
    entrypoint: str
    python: str | None


def find_flow(argument: str) -> tuple[str, str]:
    """Return the absolute path of the file and the name of the flow's function. Raises UsageError and RunnerdError."""
    path, _, function = argument.rpartition(":")
    if not path.endswith(".py") or not all(part.isidentifier() for part in function.split(".")):
        raise UsageError(f"cannot add {argument!r}: write FILE.py:FLOW, with the name of the flow's function")
    path = os.path.abspath(path)
    try:
        text = read_regular(path, max_bytes=_FILE_MAX_BYTES)
    except OSError as error:
        raise RunnerdError(f"cannot add {argument}: {path}: {error.strerror}") from None
    _require_defined(path, text, function.partition(".")[0])
    return path, function


def _require_defined(path: str, text: bytes, name: str) -> None:
    """Raise RunnerdError unless the file may define the name; what this Python cannot parse is left to the flow's."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    names = set(_defined(tree.body))
    if name in names or "*" in names:
        return
    near = difflib.get_close_matches(name, sorted(names), n=1)
    functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    hint = f"did you mean {near[0]}?" if near else f"it defines {', '.join(functions[:10]) or 'no function'}"
    raise RunnerdError(f"cannot add {path}:{name}: the file defines no {name}; {hint}")


def _defined(body: list[ast.stmt]) -> Iterator[str]:
    """Yield the names that statements at the top of a module bind, also within if, try and with."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in node.names)
        else:
            yield from (
                inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store)
            )
            for field in ("body", "orelse", "finalbody"):
                yield from _defined(getattr(node, field, []))
            for handler in getattr(node, "handlers", []):
                yield from _defined(handler.body)


def locate(path: str, function: str) -> FlowFile:
    """Find the venv beside the file or above it; the folder with the venv is the directory of the runs.

    Not above the top of the project that the file is in, and in no folder in which others could have made the venv.
    """
    folder = os.path.dirname(path)
    for place in _upwards(folder):
        for name in _VENVS:
            python = os.path.join(place, name, "bin", "python")
            if os.path.isfile(os.path.join(place, name, "pyvenv.cfg")) and os.path.exists(python):
                return FlowFile(place, f"{os.path.relpath(path, place)}:{function}", python)
    return FlowFile(folder, f"{os.path.basename(path)}:{function}", None)


def _upwards(folder: str) -> Iterator[str]:
    owners = {0, os.stat(folder).st_uid}
    for _ in range(_LEVELS_MAX):
        its = os.stat(folder)
        if its.st_uid not in owners or its.st_mode & stat.S_IWOTH:
            return
        yield folder
        above = os.path.dirname(folder)
        if above in (folder, "/") or any(os.path.exists(os.path.join(folder, name)) for name in _PROJECT):
            return
        folder = above


def file_name(deployment: str) -> str:
    """Make the name of the drop-in of a deployment."""
    return f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', deployment).strip('-.') or 'deployment'}.yaml"
