"""Make the environment of one of Prefect's workers: a standalone program for the pool's interpreter (Python 3.9+).

Nothing of runnerd is imported here and the daemon never imports this file: it passes the text as `python -c TEXT`, so
that no file permission matters. What to do is JSON in RUNNERD_INSTALL, `{"directory": ..., "requirements": [...],
"upgrade": false}`. The exit status is 0 when the environment is good, OUTDATED when it is, but could not be upgraded;
otherwise the last line printed says why not.

Invariants: an environment counts as made by a marker that is written last, and taken away before pip changes anything;
one process at a time works on it, because several pools of one user share it.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import os
import subprocess
import sys
from typing import Any

OUTDATED = 3
MARKER = "runnerd.json"


def main() -> int:
    work = json.loads(os.environ.pop("RUNNERD_INSTALL"))
    parent = os.path.dirname(work["directory"])
    try:
        os.makedirs(parent, mode=0o700, exist_ok=True)
        lock = open(work["directory"] + ".lock", "a")  # held until we end
    except OSError as error:
        advice = "set HOME or XDG_CACHE_HOME in run.environment to where its user may write"
        return refuse(f"cannot write in {parent}: {error.strerror}; {advice}")
    fcntl.flock(lock, fcntl.LOCK_EX)
    good = is_good(work)
    if good and not work["upgrade"]:
        return 0
    if not good and not make(work["directory"]):
        return 1
    return fill(work, good)


def say(words: str) -> None:
    sys.stdout.write(words + "\n")
    sys.stdout.flush()


def refuse(words: str) -> int:
    say(words)
    return 1


def python_of(directory: str) -> str:
    return os.path.join(directory, "bin", "python")


def is_good(work: dict[str, Any]) -> bool:
    """Whether it was made whole, of the same, and its interpreter is still there."""
    try:
        with open(os.path.join(work["directory"], MARKER), encoding="utf-8") as file:
            made_of = json.load(file)["requirements"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return made_of == work["requirements"] and os.access(python_of(work["directory"]), os.X_OK)


def make(directory: str) -> bool:
    """A fresh environment in the place of whatever is there."""
    if importlib.util.find_spec("ensurepip") is None or importlib.util.find_spec("venv") is None:
        refuse(
            f"{sys.executable} cannot make environments: install the package python3-venv, or name another run.python"
        )
        return False
    unmark(directory)
    say(f"making {directory}")
    return subprocess.call([sys.executable, "-m", "venv", "--clear", directory]) == 0


def unmark(directory: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(directory, MARKER))


def fill(work: dict[str, Any], upgrade: bool) -> int:
    unmark(work["directory"])
    options = ["--progress-bar", "off", "--disable-pip-version-check", *(["--upgrade"] if upgrade else [])]
    pip = [python_of(work["directory"]), "-m", "pip", "install", *options, *work["requirements"]]
    status = subprocess.call(pip)
    if status < 0 or (status > 0 and not upgrade):
        return 1
    mark(work)  # pip that gives up by itself has put back what was there; one that is killed has not
    return OUTDATED if status else 0


def mark(work: dict[str, Any]) -> None:
    path = os.path.join(work["directory"], MARKER)
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump({"requirements": work["requirements"]}, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".new", path)


if __name__ == "__main__":
    sys.exit(main())
