"""The spawner's command line, by hand: argparse would be a tenth of the program's memory."""

from __future__ import annotations

import os
import pwd
from collections.abc import Sequence

EX_USAGE = 64
_WITH_VALUE = ("--socket", "--runtime-dir", "--owner", "--users", "--cgroup-unit", "--log")

USAGE = """\
usage: runnerd-spawner --socket PATH --runtime-dir DIR [--owner USER] [--users LIST] [--cgroup-unit UNIT]
                       [--exit-when-idle] [--background --log FILE]

  --socket PATH       the Unix socket to serve
  --runtime-dir DIR   where the records of runs are kept
  --owner USER        who, by name or number, besides root may speak to it, and owns the runs' output files
  --users LIST        whose processes it may start: names with commas between them, * for anybody but uid 0
  --cgroup-unit UNIT  the systemd unit in whose cgroup, beside our own, runs get theirs and are held to their limits
  --exit-when-idle    exit when no run lives and nobody is connected
  --background        return when the socket is served; what it says from then on goes to --log FILE
"""


class Failed(Exception):
    """The spawner cannot serve; `status` is its exit status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Options:
    def __init__(self, arguments: Sequence[str]) -> None:
        values: dict[str, str] = {}
        switches: set[str] = set()
        left = iter(arguments)
        for argument in left:
            name, has_value, value = argument.partition("=")
            if name in ("--exit-when-idle", "--background") and not has_value:
                switches.add(name)
            elif name in _WITH_VALUE:
                values[name] = value if has_value else next(left, "")
            else:
                raise Failed(f"there is no option {argument}\n{USAGE}", EX_USAGE)
        self.socket = _path(values, "--socket")
        self.runtime_dir = _path(values, "--runtime-dir")
        self.background = "--background" in switches
        self.log = _path(values, "--log") if self.background else None
        self.exit_when_idle = "--exit-when-idle" in switches
        self.users = values.get("--users")
        self.cgroup_unit = _unit(values)
        self.owner = _user_id(values["--owner"]) if "--owner" in values else None


def _path(values: dict[str, str], name: str) -> str:
    if not values.get(name):
        raise Failed(f"{name} is missing\n{USAGE}", EX_USAGE)
    return os.path.abspath(values[name])


def _unit(values: dict[str, str]) -> str | None:
    unit = values.get("--cgroup-unit")
    if unit is not None and ("/" in unit or "." not in unit.strip(".")):
        raise Failed(f"cannot use --cgroup-unit: {unit!r} is no unit's name, such as runnerd-runs.service", EX_USAGE)
    return unit


def _user_id(user: str) -> int:
    if user.isdecimal():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except (KeyError, ValueError):
        raise Failed(f"cannot use --owner: there is no user {user!r}", EX_USAGE) from None
