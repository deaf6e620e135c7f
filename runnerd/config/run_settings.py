"""Reads a `run:` section of the host, a deployment or a pool, and the parts of prefect.yaml that mean the same."""

from __future__ import annotations

import os
from dataclasses import dataclass

from runnerd.config.command_lines import read_commands
from runnerd.config.sections import (
    Flaws,
    Reader,
    Table,
    Values,
    finite_or_none,
    make_duration_reader,
    read_as_is,
    read_line,
    read_section,
    read_text_map,
    read_whole,
)
from runnerd.config.units import RLIMITS, parse_percent, parse_rlimit, parse_signal
from runnerd.core.place import Json
from runnerd.core.settings import HostRunSettings, RunSettings
from runnerd.core.units import format_size, parse_size

_RLIMIT = "rlimits."
_COMMAND_MAX_S = 86400.0  # of one command before or after a run


def make_path_reader(base: str) -> Reader:
    """Make a reader of paths that resolves relative ones against `base`."""

    def read(value: Json) -> str:
        return os.path.normpath(os.path.join(base, read_line(value)))

    return read


def make_run_table(base: str) -> Table:
    """Make the table of the keys of a run: section; `base` is the configuration directory."""
    path = make_path_reader(base)
    return {
        "python": ("python", _python),
        "user": ("user", read_line),
        "group": ("group", read_line),
        "working_directory": ("working_directory", path),
        "environment": ("environment", read_text_map),
        "environment_file": ("environment_file", path),
        "limit": ("limit", read_whole),
        "limit_group": ("limit_group", read_line),
        "runtime_max": ("runtime_max_s", finite_or_none(make_duration_reader(least_s=1))),
        "memory_max": ("memory_max_bytes", _size(least=2**20)),
        "cpu_quota": ("cpu_quota_percent", _quota),
        "tasks_max": ("tasks_max", _tasks),
        "nice": ("nice", read_whole),
        "umask": ("umask", _umask),
        "stop_signal": ("stop_signal", parse_signal),
        "stop_timeout": ("stop_timeout_s", make_duration_reader(least_s=0.1)),
        "hook_timeout": ("hook_timeout_s", make_duration_reader(least_s=1)),
        "before": ("before", read_commands),
        "before_timeout": ("before_timeout_s", make_duration_reader(least_s=1, most_s=_COMMAND_MAX_S)),
        "after": ("after", read_commands),
        "after_timeout": ("after_timeout_s", make_duration_reader(least_s=1, most_s=_COMMAND_MAX_S)),
        "output_max": ("output_max_bytes", _size(least=4096)),
        "start": ("start", read_as_is),
        "preload": ("preload", tuple),
        **{f"limit_{name}": (_RLIMIT + name, _rlimit(name)) for name in RLIMITS},
    }


def read_run(node: Json, table: Table, path: tuple[str | int, ...], flaws: Flaws) -> Values:
    return read_section(node, table, path, flaws)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRun:
    """The host's defaults for every run: `said` is its own run: sections, `base` the configuration directory.

    `name` is the host's, which a deployment without a name gets.
    """

    name: str
    table: Table
    said: Values
    python: str
    user: str | None
    base: str

    def settings(self, values: Values) -> RunSettings:
        """Make the settings of `values`, with the host's interpreter, user and directory where `values` has none."""
        arguments = values.arguments()
        rlimits = {name: arguments.pop(_RLIMIT + name) for name in RLIMITS if _RLIMIT + name in arguments}
        defaults: dict[str, Json] = {"python": self.python, "user": self.user, "working_directory": self.base}
        return RunSettings(**{**defaults, **arguments}, rlimits=rlimits)

    def own_settings(self) -> HostRunSettings:
        """Make the settings of runs that neither a deployment nor a pool of this host starts."""
        return HostRunSettings(run=self.settings(self.said), scratch="working_directory" not in self.said.arguments())


def _python(value: Json) -> str:
    text = read_line(value)
    if "/" in text and not os.path.isabs(text):
        raise ValueError(f"must be an absolute path, or a name without '/' to look up in PATH, not {text!r}")
    return text


def _size(*, least: int) -> Reader:
    def read(value: Json) -> int | None:
        size = parse_size(value)
        if size is not None and size < least:
            raise ValueError(f"must be at least {format_size(least)}, not {value!r}")
        return size

    return read


def _quota(value: Json) -> float | None:
    if str(value).strip() == "infinity":
        return None
    percent = parse_percent(str(value))
    if percent <= 0:
        raise ValueError(f"must be more than 0%, not {value!r}")
    return percent


def _tasks(value: Json) -> int | None:
    return None if value == "infinity" else read_whole(value)


def _umask(value: Json) -> int:
    return int(str(value), 8)


def _rlimit(name: str) -> Reader:
    def read(value: Json) -> tuple[int, int]:
        return parse_rlimit(name, value)

    return read
