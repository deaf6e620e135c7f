"""Reads what a script serves, in the script's own interpreter and as its user, without a daemon."""

from __future__ import annotations

import grp
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from runnerd.cli.imports.found import Found, ImportRefused, Surroundings
from runnerd.config import parse_environment_file
from runnerd.config.script_entries import leave_permitted
from runnerd.core.errors import ConfigError
from runnerd.core.recording import Recorded, RecordingFailure
from runnerd.deployments.recording import (
    START_LIMIT_S,
    TIME_LIMIT_S,
    parse_recording,
    recording_argv,
    recording_environment,
)

_LIMIT_S = TIME_LIMIT_S + 2 * START_LIMIT_S
_ANSWER_MAX_BYTES = 16 * 2**20
_ENVIRONMENTS = (".venv", "venv", "env")  # the usual names of a virtual environment beside the code
_FOLDERS_UP = 3
_REFUSED_MAX = 50  # of one entry
_SCRIPT_MAX_BYTES = 2**20
_SERVING = re.compile(rb"\b(?:a?serve|Runner)\b")
_LOCALE = ("LANG", "LC_ALL", "TZ", "PATH")


def import_script(
    script: str, around: Surroundings, found: Found, *, arguments: Sequence[str] = (), python: str | None = None
) -> None:
    """Add what `script` serves to `found`. Raises ImportRefused."""
    path = os.path.join(around.directory, script)
    if not os.path.isfile(path):
        raise ImportRefused(f"cannot import {script}: there is no such file in {around.directory}", status=404)
    python = python or find_python(path, around)
    user = around.user or _owner(path)
    recording = _record(path, around, python=python, user=user, arguments=arguments)
    if isinstance(recording, RecordingFailure):
        said = recording.said
        where = f"{path}:{said.line}: " if said.line else ""
        raise ImportRefused(f"cannot import {where}{said.message}", detail=recording.traceback_tail)
    around.user = user
    section = around.run_section(python)
    section["working_directory"] = around.directory
    for one in recording.served:
        refused: list[str] = []
        entry = leave_permitted(one.entry, refused)  # as whom its flows run is not the script's to say
        for key in refused[:_REFUSED_MAX]:
            found.leave_out(f"{path}:{one.line}", f"{key}: unknown key in what a script says")
        own = entry.get("run")
        run = {**section, **(own if isinstance(own, dict) else {})}
        found.deployments.append({**entry, "run": run})
    for said in recording.left_out:
        found.leave_out(f"{path}:{said.line}" if said.line else path, said.message)


def refuse_unlikely(script: str, around: Surroundings) -> None:
    """Refuse a script of a unit or a crontab whose text names nothing that serves: to read it is to run it, and a job
    that deletes or sends something must not run because its crontab is imported. Raises ImportRefused."""
    path = os.path.join(around.directory, script)
    try:
        with open(path, "rb") as file:
            text = file.read(_SCRIPT_MAX_BYTES)
    except OSError:
        return  # import_script says what is wrong with it
    if _SERVING.search(text) is None:
        raise ImportRefused(
            f"cannot import {script}: it names neither serve() nor a Runner, so it was not run; if it serves by other"
            f" means: runnerctl import {path}"
        )


def _owner(path: str) -> str | None:
    """Return the user as whom root reads a script; None for this process's own."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwuid(os.stat(path).st_uid).pw_name
    except (KeyError, OSError):
        return None


def find_python(path: str, around: Surroundings) -> str:
    """Find the interpreter of a script: as its unit says, by its first line, or in an environment beside it."""
    return around.python or _by_first_line(path) or _beside(os.path.dirname(path), around) or _in_path(around)


def _by_first_line(path: str) -> str | None:
    try:
        with open(path, "rb") as file:
            words = file.readline(1000).decode("utf-8", "replace").strip().split()
    except OSError:
        return None
    if not words or not words[0].startswith("#!"):
        return None
    program = words[0][2:] or (words[1] if len(words) > 1 else "")
    return program if "python" in os.path.basename(program) and os.access(program, os.X_OK) else None


def _beside(folder: str, around: Surroundings) -> str | None:
    folders = [folder]
    while len(folders) < _FOLDERS_UP and os.path.dirname(folders[-1]) != folders[-1]:
        folders.append(os.path.dirname(folders[-1]))
    for place in dict.fromkeys((*folders, around.directory)):
        for name in _ENVIRONMENTS:
            python = os.path.join(place, name, "bin", "python")
            if os.access(python, os.X_OK):
                return python
    return None


def _in_path(around: Surroundings) -> str:
    environment = {**os.environ, **around.environment}
    active = environment.get("VIRTUAL_ENV")
    if active and os.access(python := os.path.join(active, "bin", "python"), os.X_OK):
        return python
    found = shutil.which("python3", path=environment.get("PATH"))
    if found is None:
        raise ImportRefused("cannot find a Python in PATH; name one with --python")
    return found


# --- the process --------------------------------------------------------------------------------------------------


def _record(path: str, around: Surroundings, *, python: str, user: str | None, arguments: Sequence[str]) -> Recorded:
    directory = around.directory
    script = os.path.relpath(path, directory) if path.startswith(f"{directory.rstrip('/')}/") else path
    with tempfile.TemporaryFile() as answer:
        work = recording_environment(script, arguments=arguments, answers=answer.fileno())
        environment = {**_environment(around, user), **work}
        try:
            done = subprocess.run(
                recording_argv(python),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=directory,
                env=environment,
                pass_fds=(answer.fileno(),),
                timeout=_LIMIT_S,
                start_new_session=True,
                check=False,
                **_identity(around, user),
            )
            words = f"it exited {done.returncode}"
        except subprocess.TimeoutExpired:
            words = f"it did not end within {_LIMIT_S:g} s"
        except (OSError, subprocess.SubprocessError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise ImportRefused(f"cannot run {python} in {directory}: {why}") from None
        answer.seek(0)
        text = answer.read(_ANSWER_MAX_BYTES).decode("utf-8", "replace")
    return parse_recording(text, script, words=words)


def _identity(around: Surroundings, user: str | None) -> dict[str, Any]:
    """Return as whom the process runs. Raises ImportRefused for another user than root may choose."""
    if user is None:
        return {}
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        raise ImportRefused(f"cannot import {around.place}: there is no user {user} on this host") from None
    if account.pw_uid == os.geteuid():
        return {}
    if os.geteuid() != 0:
        raise ImportRefused(
            f"cannot import {around.place}: its script is run as {user} to be read; run as root: sudo runnerctl import"
        )
    group = around.run.get("group")
    gid = _gid(str(group), around) if group is not None else account.pw_gid
    return {"user": account.pw_uid, "group": gid, "extra_groups": os.getgrouplist(user, gid)}


def _gid(group: str, around: Surroundings) -> int:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise ImportRefused(f"cannot import {around.place}: there is no group {group} on this host") from None


def _environment(around: Surroundings, user: str | None) -> dict[str, str]:
    """Return the environment of this shell for its own user's script, else that of a login."""
    base = dict(os.environ)
    if user is not None and (account := pwd.getpwnam(user)).pw_uid != os.geteuid():
        base = {key: value for key, value in os.environ.items() if key in _LOCALE}
        base |= {"HOME": account.pw_dir, "USER": user, "LOGNAME": user, "SHELL": account.pw_shell}
    return {**base, **around.environment, **_read_files(around)}


def _read_files(around: Surroundings) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for path in around.environment_files:
        try:
            with open(path, encoding="utf-8") as file:
                found |= parse_environment_file(file.read(2**20), file=path)
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError, ConfigError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise ImportRefused(f"cannot import {around.place}: environment file {path}: {why}") from None
    return found
