"""Makes the environment of one of Prefect's workers: a standalone program for the pool's interpreter (Python 3.9+).

This file imports no module of runnerd, and the daemon does not import it but passes the text as `python -c TEXT`, so
that no file permission matters. The work is JSON in RUNNERD_INSTALL, `{"directory": ..., "requirements": [...],
"upgrade": false}`. The exit status is 0 when the environment is complete, OUTDATED when it is complete and cannot be
upgraded; otherwise the last line printed says why it is not.

Invariants: an environment is complete if it has a marker, which is written last and removed before pip changes files;
one process at a time changes an environment, because several pools of one user share it.
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
        lock = open(work["directory"] + ".lock", "a")  # held until exit
    except OSError as error:
        advice = "set HOME or XDG_CACHE_HOME in run.environment to where its user may write"
        return refuse(f"cannot write in {parent}: {error.strerror}; {advice}")
    fcntl.flock(lock, fcntl.LOCK_EX)
    good = is_complete(work)
    if good and not work["upgrade"]:
        return 0
    if not good and not make_environment(work["directory"]):
        return 1
    return install_requirements(work, good)


def say(words: str) -> None:
    sys.stdout.write(words + "\n")
    sys.stdout.flush()


def refuse(words: str) -> int:
    say(words)
    return 1


def python_of(directory: str) -> str:
    return os.path.join(directory, "bin", "python")


def is_complete(work: dict[str, Any]) -> bool:
    """Return whether the environment is complete, has these requirements, and still has its interpreter."""
    try:
        with open(os.path.join(work["directory"], MARKER), encoding="utf-8") as file:
            made_of = json.load(file)["requirements"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return made_of == work["requirements"] and os.access(python_of(work["directory"]), os.X_OK)


def make_environment(directory: str) -> bool:
    """Make an empty environment, in place of any earlier one."""
    if importlib.util.find_spec("ensurepip") is None or importlib.util.find_spec("venv") is None:
        refuse(
            f"{sys.executable} cannot make environments: install the package python3-venv, or name another run.python"
        )
        return False
    remove_marker(directory)
    say(f"making {directory}")
    return subprocess.call([sys.executable, "-m", "venv", "--clear", directory]) == 0


def remove_marker(directory: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(directory, MARKER))


def install_requirements(work: dict[str, Any], upgrade: bool) -> int:
    remove_marker(work["directory"])
    options = ["--progress-bar", "off", "--disable-pip-version-check", *(["--upgrade"] if upgrade else [])]
    pip = [python_of(work["directory"]), "-m", "pip", "install", *options, *work["requirements"]]
    status = subprocess.call(pip)
    if status < 0 or (status > 0 and not upgrade):
        return 1
    write_marker(work)  # a pip that fails restores the old packages; a killed one does not
    return OUTDATED if status else 0


def write_marker(work: dict[str, Any]) -> None:
    path = os.path.join(work["directory"], MARKER)
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump({"requirements": work["requirements"]}, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".new", path)


if __name__ == "__main__":
    sys.exit(main())
