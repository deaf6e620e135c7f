"""Decides what the argument of `runnerctl import` is, and reads it: a prefect.yaml, a script, a unit or a crontab."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from runnerd.cli.imports.commands import Command, read_command, read_shell
from runnerd.cli.imports.crontab import CronLine, home_of, read_crontab
from runnerd.cli.imports.found import Found, ImportRefused, Surroundings
from runnerd.cli.imports.prefect_commands import find_interpreter, import_command, leave_out_credentials
from runnerd.cli.imports.project import import_project
from runnerd.cli.imports.scripts import import_script, refuse_unlikely
from runnerd.cli.imports.unit import Unit, find_unit, read_exec, read_surroundings, read_unit

_TEXT_MAX_BYTES = 2**20
_NOTHING = "prefect worker start, prefect agent start, prefect flow serve or a script that serves"


def import_origin(origin: str, *, python: str | None, environ: Mapping[str, str]) -> Found:
    """Read what `origin` names. Raises ImportRefused."""
    found = Found()
    if origin == "-":
        _import_crontab(sys.stdin.read(_TEXT_MAX_BYTES), None, found, python)
    elif os.path.isdir(origin):
        _import_file(os.path.join(origin, "prefect.yaml"), found, python)
    elif os.path.exists(origin):
        _import_file(origin, found, python)
    elif "/" not in origin and (unit := find_unit(origin, environ)) is not None:
        _import_unit(unit, found, python)
    else:
        also = "" if "/" in origin else ", and no unit of that name"
        raise ImportRefused(f"cannot import {origin}: there is no such file{also}", status=404)
    return found


def _import_file(path: str, found: Found, python: str | None) -> None:
    text = _read(path)
    name = os.path.basename(path)
    first = text.split("\n", 1)[0]
    if name.endswith((".yaml", ".yml")):
        import_project(path, found)
    elif name.endswith(".service") or "\n[Service]" in f"\n{text}":
        _import_unit(read_unit(path), found, python)
    elif name.endswith(".py") or (first.startswith("#!") and "python" in first):
        _import_script(path, found, python)
    else:
        _import_crontab(text, os.path.abspath(path), found, python)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(_TEXT_MAX_BYTES)
    except OSError as error:
        status = 404 if isinstance(error, FileNotFoundError) else 0
        raise ImportRefused(f"cannot import {path}: {error.strerror}", status=status) from None


def _import_script(path: str, found: Found, python: str | None) -> None:
    """Import a script as if it were started here, or in its own directory when it is not below this one."""
    here, path = os.getcwd(), os.path.abspath(path)
    directory = here if path.startswith(f"{here.rstrip('/')}/") else os.path.dirname(path)
    around = Surroundings(place=path, directory=directory)
    import_script(os.path.relpath(path, directory), around, found, python=python)


def _import_unit(unit: Unit, found: Found, python: str | None) -> None:
    words, place = read_exec(unit)
    around = read_surroundings(unit, place, found)
    leave_out_credentials(around, found)
    _import_words(read_command(words), around, found, python, what=unit.name)


def _import_words(command: Command, around: Surroundings, found: Found, python: str | None, *, what: str) -> None:
    if command.directory is not None:
        around.directory = os.path.normpath(os.path.join(around.directory, command.directory))
        around.run["working_directory"] = around.directory
    around.environment |= command.environment
    around.user = command.user or around.user
    leave_out_credentials(around, found)
    for other in command.others:
        found.leave_out(around.place, f"it also runs: {other}")
    if command.kind == "script" and command.script is not None:
        around.python = find_interpreter(command, around)
        refuse_unlikely(command.script, around)
        import_script(command.script, around, found, arguments=command.arguments, python=python)
    elif command.kind is not None:
        import_command(command, around, found)
    else:
        raise ImportRefused(f"cannot import {what}: it starts none of {_NOTHING}")


# --- crontabs -----------------------------------------------------------------------------------------------------


def _import_crontab(text: str, path: str | None, found: Found, python: str | None) -> None:
    """Import the lines of a crontab that start something of Prefect's, each by itself."""
    name, imported = path or "standard input", 0
    refused: list[ImportRefused] = []
    for line in read_crontab(text, path=path):
        around = Surroundings(
            place=f"{name}:{line.number}", directory=home_of(line.user) if line.user else os.path.expanduser("~"),
            user=line.user, environment=dict(line.environment),
        )  # fmt: skip
        try:
            command = read_shell(line.command)
            if command.kind is None:
                found.leave_out(around.place, f"starts none of {_NOTHING}")
                continue
            _import_words(command, around, found, python, what=around.place)
        except ValueError as error:
            found.leave_out(around.place, f"cannot read the command: {error}")
            continue
        except ImportRefused as error:
            refused.append(error)
            found.leave_out(around.place, str(error))
            continue
        imported += 1
        _note_times(line, command, around, found)
    if not imported:
        raise refused[0] if refused else ImportRefused(f"cannot import {name}: no line starts {_NOTHING}")


def _note_times(line: CronLine, command: Command, around: Surroundings, found: Found) -> None:
    if line.times != "@reboot":
        what = "the script serves" if command.kind in ("script", "serve") else "the pool is served"
        found.leave_out(around.place, f"{line.times}: {what} all the time; remove the line from the crontab")
