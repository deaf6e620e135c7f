"""Stamps what a warm interpreter has imported: its interpreter, the folders of packages, .pth files, preloaded modules.

Invariants: nothing is imported or run, and nothing but pyvenv.cfg and .pth files is opened; the number of files whose
stamps are read is bounded. What the daemon may not see counts as unchanged. All of it may hang: only in BoundedCalls.
"""

from __future__ import annotations

import glob
import hashlib
import itertools
import os
import stat
from collections.abc import Iterator
from functools import partial

from runnerd.files.bounded_calls import BoundedCalls, Unanswered
from runnerd.files.regular import read_start
from runnerd.warm.plan import Plan

_PACKAGES = (
    "lib/python3*/site-packages",
    "lib64/python3*/site-packages",
    "lib/python3*/dist-packages",
    "local/lib/python3*/dist-packages",
)
_CUSTOM = ("sitecustomize.py", "usercustomize.py")  # imported at the start of an interpreter
_SMALL_FILE_BYTES = 65536
_FOLDERS_MAX = 100
_FILES_MAX = 2000  # of the preloaded modules
_WALKED_MAX = 500  # folders
_NAMES_MAX = 20_000  # of one folder
_PTH_MAX = 100  # files of one folder


async def read_stamp(plan: Plan, *, calls: BoundedCalls) -> str | Unanswered:
    """Return a stamp that changes when the interpreter, its packages or a preloaded file change."""
    found = await calls.call(os.path.dirname(plan.python), partial(_stamp_interpreter, plan))
    if isinstance(found, Unanswered):
        return Unanswered(f"{os.path.dirname(plan.python)} {found.words}")
    stamps, folders = found
    if not plan.preload:
        return _digest(stamps)
    # By itself: the directory of a deployment is often on another mount.
    more = await calls.call(plan.working_directory, partial(_stamp_preloaded, plan, folders))
    if isinstance(more, Unanswered):
        return Unanswered(f"{plan.working_directory} {more.words}")
    return _digest(stamps + more)


def _digest(stamps: list[str]) -> str:
    return hashlib.sha256("\n".join(stamps).encode("utf-8", "replace")).hexdigest()


# --- the interpreter ----------------------------------------------------------------------------------------------


def _stamp_interpreter(plan: Plan) -> tuple[list[str], list[tuple[str, bool]]]:
    """Return stamps, and the folders in which modules are searched; of each, whether it belongs to an installation."""
    stamps = [_stamp(plan.python), _stamp(os.path.realpath(plan.python))]
    packages = list(dict.fromkeys(_package_folders(plan, stamps)))[:_FOLDERS_MAX]
    linked: list[str] = []
    for folder in packages:
        stamps.append(_stamp(folder))
        names = _names(folder)
        for name in [name for name in names if name.endswith(".pth")][:_PTH_MAX]:
            path = os.path.join(folder, name)
            stamps.append(_stamp(path))
            linked += _lines_of(path, folder)
        for name in names:
            if name.startswith("prefect-") and name.endswith(".dist-info"):
                stamps += [_stamp(os.path.join(folder, name)), _stamp(os.path.join(folder, name, "RECORD"))]
    here = [
        os.path.join(plan.working_directory, path) for path in (plan.variable("PYTHONPATH") or "").split(":") if path
    ]
    others = list(dict.fromkeys([plan.working_directory, *here, *linked]))[:_FOLDERS_MAX]
    # Not these folders themselves: flows write their results there, and each run would find another interpreter.
    stamps += [_stamp(os.path.join(folder, name)) for folder in others for name in _CUSTOM]
    return stamps, [*((folder, False) for folder in others), *((folder, True) for folder in packages)]


def _package_folders(plan: Plan, stamps: list[str]) -> Iterator[str]:
    prefix = os.path.dirname(os.path.dirname(plan.python))
    config = os.path.join(prefix, "pyvenv.cfg")
    stamps.append(_stamp(config))
    said = dict(_settings_of(config))
    prefixes = [prefix]
    if not said:
        prefixes.append(os.path.dirname(os.path.dirname(os.path.realpath(plan.python))))
    elif said.get("include-system-site-packages", "").lower() == "true":
        prefixes.append(os.path.dirname(said.get("home", prefix)))
    user = plan.variable("PYTHONUSERBASE") or os.path.join(plan.variable("HOME") or "/nonexistent", ".local")
    for root in (*prefixes, user):
        for pattern in _PACKAGES:
            yield from sorted(glob.glob(os.path.join(glob.escape(root), pattern)))


def _settings_of(path: str) -> Iterator[tuple[str, str]]:
    for line in _text_of(path).splitlines():
        key, equals, value = line.partition("=")
        if equals:
            yield key.strip().lower(), value.strip()


def _lines_of(path: str, folder: str) -> list[str]:
    """Return the folders that a .pth file adds; `site` runs its lines that import."""
    lines = [line.strip() for line in _text_of(path).splitlines()]
    return [os.path.join(folder, line) for line in lines if line and not line.startswith(("#", "import ", "import\t"))]


def _text_of(path: str) -> str:
    try:
        return read_start(path, max_bytes=_SMALL_FILE_BYTES).decode("utf-8", "replace").replace("\0", "")
    except OSError:
        return ""


# --- preloaded modules ----------------------------------------------------------------------------------------------


def _stamp_preloaded(plan: Plan, folders: list[tuple[str, bool]]) -> list[str]:
    stamps: list[str] = []
    for top in dict.fromkeys(name.partition(".")[0] for name in plan.preload):
        stamps += _stamp_module(top, folders, most=_FILES_MAX - len(stamps))
    return stamps


def _stamp_module(top: str, folders: list[tuple[str, bool]], *, most: int) -> list[str]:
    """Stamp the files of the first module or package `top`; of an installed one its own folder is enough."""
    for folder, installed in folders:
        package, module = os.path.join(folder, top), os.path.join(folder, f"{top}.py")
        if not (os.path.isdir(package) or os.path.exists(module)):
            continue
        if installed:
            return [_stamp(package), _stamp(os.path.join(package, "__init__.py")), _stamp(module)]
        # What it imports from beside itself is not known here. No folder: flows write their results there.
        beside = (os.path.join(folder, name) for name in _names(folder) if name.endswith(".py"))
        return [_stamp(path) for path in itertools.islice(itertools.chain(beside, _walk(package)), max(0, most))]
    return []


def _walk(package: str) -> Iterator[str]:
    for folder, names, files in itertools.islice(os.walk(package), _WALKED_MAX):
        names[:] = sorted(name for name in names if not name.startswith((".", "__pycache__")))
        yield from (os.path.join(folder, name) for name in sorted(files) if name.endswith((".py", ".so")))


def _names(folder: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in itertools.islice(entries, _NAMES_MAX))
    except OSError:
        return []


def _stamp(path: str) -> str:
    try:
        about = os.stat(path)
    except (OSError, ValueError):
        return f"{path}: -"
    size = about.st_size if stat.S_ISREG(about.st_mode) else 0
    return f"{path}: {about.st_mtime_ns} {size} {about.st_ino} {about.st_ctime_ns}"
