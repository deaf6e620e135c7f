"""What a script and its files say, and words for what goes wrong with it: for record_script.py.

The text of this file is passed to the script's own interpreter together with record_script.py's (Python 3.9+).
"""

from __future__ import annotations

import ast
import contextlib
import os
import sys
import time
import traceback
from collections.abc import Iterator
from typing import Any

TRACEBACK_LINES = 12
PACKAGE_FOLDERS = ("site-packages", "dist-packages")
DEPENDENCIES_MAX_CHARACTERS = 400_000  # of all paths together
SERVING = ("serve", "aserve")
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


class Refusal(Exception):
    """Says why a script cannot be read; the daemon decides by `kind`."""

    def __init__(self, kind: str, message: str, traceback_tail: str = "", line: int | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.traceback_tail = traceback_tail
        self.line = line

    def answer(self) -> dict[str, Any]:
        message = " ".join(str(self).split())
        error = {"kind": self.kind, "message": message, "line": self.line, "traceback_tail": self.traceback_tail}
        return {"error": error}


class Served(BaseException):
    """Ends what serves: a Runner would go on until it is stopped. No Exception, which a script may catch."""


# --- the calls in a text ------------------------------------------------------------------------------------


def parse(path: str) -> Any:
    try:
        with open(path, "rb") as file:
            return ast.parse(file.read())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return None


def modules_under_way() -> dict[str, int]:
    frame: Any = sys._getframe(1)
    found = {}
    while frame is not None:
        if frame.f_code.co_name == "<module>" and os.path.isabs(frame.f_code.co_filename):
            found[frame.f_code.co_filename] = frame.f_lineno
        frame = frame.f_back
    return found


def is_flow_of(deployment: Any, path: str) -> bool:
    place, _, function = (deployment.entrypoint or "").rpartition(":")
    is_here = bool(function) and getattr(deployment, "storage", None) is None
    return is_here and os.path.realpath(place) == os.path.realpath(path)


def is_guarded(path: str, line: int) -> bool:
    """Whether the statement at this line of a module is below an if that asks for __name__."""
    tree = parse(path)
    return tree is None or any(
        isinstance(node, ast.If) and spans(node, line) and "__name__" in ast.dump(node.test) for node in tree.body
    )


def spans(node: Any, line: int) -> bool:
    return bool(node.lineno <= line <= node.end_lineno)


def runners_of(tree: Any) -> set[str]:
    """Name the variables that hold a Runner."""
    made = [node for node in ast.walk(tree) if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)]
    return {target.id for node in made if called(node.value) == "Runner"
            for target in node.targets if isinstance(target, ast.Name)}  # fmt: skip


def called(call: Any) -> str:
    return str(getattr(call.func, "attr", None) or getattr(call.func, "id", ""))


def calls_behind(body: list[Any], line: int, runners: set[str]) -> Iterator[tuple[int, bool]]:
    """Yield the lines that serve in the statements that follow this line; and its own, True, where it is in a loop."""
    for index, node in enumerate(body):
        if not spans(node, line):
            continue
        for nested in bodies_of(node):
            yield from calls_behind(nested, line, runners)
        if isinstance(node, (ast.For, ast.AsyncFor, ast.While)):
            yield line, True
        following = body[index + 1 :] if not isinstance(node, DEFINITIONS) else []
        for each in [each for later in following if not isinstance(later, DEFINITIONS) for each in ast.walk(later)]:
            if isinstance(each, ast.Call) and is_serving(each, runners):
                yield each.lineno, False
        return


def bodies_of(node: Any) -> list[list[Any]]:
    """Return the lists of statements within a statement."""
    inner = [getattr(node, name, None) for name in ("body", "orelse", "finalbody")]
    inner += [handler.body for handler in getattr(node, "handlers", [])]
    return [each for each in inner if isinstance(each, list)]


def is_serving(call: Any, runners: set[str]) -> bool:
    owner = getattr(getattr(call.func, "value", None), "id", None)
    return called(call) in SERVING or (called(call) == "start" and owner in runners)


# --- what an answer depends on, as in inspect_flow.py -------------------------------------------------------


def dependencies(script: str, began_ns: int) -> dict[str, str]:
    """Stamps of the files that were imported from outside the interpreter's packages, of the folders of those packages,
    and of the interpreter, by path; deployments/dependencies.py compares them."""
    imported = [name for module in list(sys.modules.values()) if isinstance(name := attribute(module), str)]
    folders = [path for path in sys.path if os.path.basename(path) in PACKAGE_FOLDERS]
    standard = os.path.dirname(os.__file__) + os.sep
    own = [
        path
        for path in map(os.path.abspath, imported)
        if not path.startswith(standard) and not set(PACKAGE_FOLDERS) & set(path.split(os.sep))
    ]
    found: dict[str, str] = {}
    room = DEPENDENCIES_MAX_CHARACTERS
    for path in [script, sys.executable, *folders, *own]:
        path = os.path.abspath(path)
        while not os.path.exists(path) and len(path) > 1:  # a module in a zip file
            path = os.path.dirname(path)
        room -= 0 if path in found else len(path) + 50
        if room > 0:
            found[path] = stamp(path, began_ns)
    return found


def attribute(module: Any) -> Any:
    with contextlib.suppress(Exception):  # anything may stand in sys.modules
        return vars(module).get("__file__")
    return None


def stamp(path: str, began_ns: int) -> str:
    about = os.stat(path)
    if began_ns <= about.st_ctime_ns <= time.time_ns():
        return "changed meanwhile"  # no later stamp is equal to this
    return f"{about.st_mtime_ns} {about.st_size} {about.st_ino}" if os.path.isfile(path) else f"{about.st_mtime_ns}"


# --- words --------------------------------------------------------------------------------------------------


def words_of(exc: BaseException) -> str:
    text = exc.msg if isinstance(exc, SyntaxError) else str(exc)
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__


def line_of(exc: BaseException, path: str) -> int | None:
    """Return the line of the script where the error is, or that has called what failed."""
    if isinstance(exc, SyntaxError) and exc.filename == path:
        return exc.lineno
    own = [frame.lineno for frame in traceback.extract_tb(exc.__traceback__) if frame.filename == path]
    return own[-1] if own else None


def tail_of(exc: BaseException) -> str:
    text = "".join(traceback.format_exception(type(exc), exc, exc.__traceback__, chain=False))
    return "\n".join(text.splitlines()[-TRACEBACK_LINES:])
