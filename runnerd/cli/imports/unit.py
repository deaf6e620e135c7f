"""Reads a systemd service unit: its command, and what of its settings is a key of `run:`."""

from __future__ import annotations

import os
import pwd
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from runnerd.cli.imports.found import Found, ImportRefused, Surroundings
from runnerd.core.place import Json

_FOLDERS = ("/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system",
            "/lib/systemd/system")  # fmt: skip
_MAX_BYTES = 2**20
_SAME_KEYS = {
    "Group": "group",
    "MemoryMax": "memory_max",
    "CPUQuota": "cpu_quota",
    "Nice": "nice",
    "UMask": "umask",
    "KillSignal": "stop_signal",
    "TimeoutStopSec": "stop_timeout",
    "TasksMax": "tasks_max",
    **{f"Limit{name.upper()}": f"limit_{name}" for name in "nofile nproc core as fsize memlock stack data cpu".split()},
}
_OF_ALL_RUNS = ("MemoryMax", "CPUQuota", "TasksMax")
# What runnerd's own unit does, or what says nothing about the flows.
_NEEDLESS = frozenset(
    "ExecStart Type Restart RestartSec StartLimitBurst StartLimitIntervalSec StandardOutput StandardError StandardInput"
    " SyslogIdentifier KillMode TimeoutStartSec TimeoutSec NotifyAccess RemainAfterExit GuessMainPID SendSIGKILL"
    " Delegate User WorkingDirectory Environment EnvironmentFile".split()
)
_NUMBERS = ("nice",)


class Setting(NamedTuple):
    value: str
    place: str


@dataclass(frozen=True, slots=True)
class Unit:
    """The settings of the section [Service], by name and in order; an empty assignment has removed those before it."""

    name: str
    path: str
    settings: Mapping[str, Sequence[Setting]]

    def last(self, key: str) -> Setting | None:
        found = self.settings.get(key)
        return found[-1] if found else None


def find_unit(name: str, environ: Mapping[str, str]) -> Unit | None:
    """Find a unit by its name, where systemd looks for it, with its drop-ins; None if there is none."""
    full = name if name.endswith(".service") else f"{name}.service"
    said = environ.get("SYSTEMD_UNIT_PATH")
    folders = [folder for folder in said.split(":") if folder] if said else list(_FOLDERS)
    template = re.sub(r"@[^.]*\.", "@.", full)
    for wanted in dict.fromkeys((full, template)):
        path = next((at for at in (os.path.join(folder, wanted) for folder in folders) if os.path.isfile(at)), None)
        if path is not None:
            more = [os.path.join(folder, f"{one}.d") for folder in folders for one in dict.fromkeys((wanted, full))]
            return read_unit(path, name=full, more=more)
    return None


def read_unit(path: str, *, name: str | None = None, more: Sequence[str] = ()) -> Unit:
    """Read a unit file, and the drop-ins of the folders `more` (default: of its own). Raises ImportRefused."""
    name = name or os.path.basename(path)
    folders = more or [f"{path}.d"]
    drop_ins = {entry: os.path.join(folder, entry) for folder in reversed(folders) for entry in _list_conf(folder)}
    settings: dict[str, list[Setting]] = {}
    for file in (path, *(drop_ins[entry] for entry in sorted(drop_ins))):
        for key, setting in _read_settings(file):
            if setting.value:
                value = _expand(setting.value, name)
                settings.setdefault(key, []).append(setting._replace(value=value))
            else:
                settings.pop(key, None)
    return Unit(name, path, settings)


def _list_conf(folder: str) -> list[str]:
    try:
        return [entry for entry in os.listdir(folder) if entry.endswith(".conf")]
    except OSError:
        return []


def _read_settings(path: str) -> list[tuple[str, Setting]]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read(_MAX_BYTES).splitlines()
    except OSError as error:
        raise ImportRefused(f"cannot read the unit {path}: {error.strerror}") from None
    section, found, number = "", [], 0
    while number < len(lines):
        first, text = number + 1, lines[number].strip()
        number += 1
        while text.endswith("\\") and not text.startswith(("#", ";")) and number < len(lines):
            text = f"{text[:-1].rstrip()} {lines[number].strip()}"
            number += 1
        if text.startswith("[") and text.endswith("]"):
            section = text[1:-1]
        elif section == "Service" and not text.startswith(("#", ";")) and "=" in text:
            key, _, value = text.partition("=")
            found.append((key.strip(), Setting(value.strip(), f"{path}:{first}")))
    return found


def _expand(value: str, name: str) -> str:
    """Replace the specifiers that the name of the unit gives."""
    stem = name.removesuffix(".service")
    prefix, _, instance = stem.partition("@")
    known = {"%%": "%", "%n": name, "%N": stem, "%p": prefix, "%i": instance, "%I": instance.replace("-", "/")}
    return re.sub("%[%nNpiI]", lambda match: known[match[0]], value)


def read_exec(unit: Unit) -> tuple[list[str], str]:
    """Return the words of ExecStart= and its place. Raises ImportRefused for none or several."""
    found = unit.settings.get("ExecStart", ())
    if not found:
        raise ImportRefused(f"cannot import {unit.name}: it has no ExecStart=; is it a service?")
    if len(found) > 1:
        places = " and ".join(one.place for one in found)
        raise ImportRefused(
            f"cannot import {unit.name}: it has {len(found)} ExecStart= ({places}), and each starts another program;"
            " copy the unit once for each, with one ExecStart=, and import the copies"
        )
    text = re.sub(r"^[@\-:+!|]+", "", found[0].value)
    try:
        return [word.replace("$$", "$") for word in shlex.split(text)], found[0].place
    except ValueError as error:
        raise ImportRefused(f"cannot import {unit.name}: {found[0].place}: ExecStart=: {error}") from None


def read_surroundings(unit: Unit, place: str, found: Found) -> Surroundings:
    """Read in what the unit runs its command, and note in `found` what of its settings is left out."""
    user = unit.last("User")
    around = Surroundings(place=place, directory=_directory(unit), user=user.value if user else "root")
    around.run["working_directory"] = around.directory
    if around.user == "root":
        found.leave_out(
            place, "it runs as root; here flows have the user of the host (run.user), unless you set another"
        )
    _read_variables(unit, around, found)
    for key, settings in unit.settings.items():
        setting = settings[-1]
        if key in _SAME_KEYS:
            name = _SAME_KEYS[key]
            around.run[name] = _value(name, setting.value)
            if key in _OF_ALL_RUNS:
                words = f"{key}={setting.value} bounds all runs of the unit together, run.{name} each run for itself"
                found.leave_out(setting.place, words)
        elif key == "RuntimeMaxSec":
            found.leave_out(setting.place, f"{key}={setting.value} bounds the service; of a run: run.runtime_max")
        elif key not in _NEEDLESS:
            found.leave_out(setting.place, f"{key}={setting.value}")
    return around


def _directory(unit: Unit) -> str:
    said = unit.last("WorkingDirectory")
    if said is None:
        return "/"
    directory = said.value.removeprefix("-")
    user = unit.last("User")
    return _home(user.value if user else "root") if directory == "~" else directory


def _home(user: str) -> str:
    try:
        return pwd.getpwnam(user).pw_dir
    except KeyError:
        return "/"


def _read_variables(unit: Unit, around: Surroundings, found: Found) -> None:
    for setting in unit.settings.get("Environment", ()):
        try:
            words = shlex.split(setting.value)
        except ValueError as error:
            raise ImportRefused(f"cannot import {unit.name}: {setting.place}: Environment=: {error}") from None
        around.environment |= dict(word.split("=", 1) for word in words if "=" in word)
    for setting in unit.settings.get("EnvironmentFile", ()):
        if around.environment_files:
            why = f"EnvironmentFile={setting.value}: run.environment_file is one file; put both into one"
            found.leave_out(setting.place, why)
        else:
            around.environment_files.append(setting.value.removeprefix("-"))


def _value(key: str, value: str) -> Json:
    return int(value) if key in _NUMBERS and re.fullmatch(r"-?[0-9]{1,3}", value) else value
