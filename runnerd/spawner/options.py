"""Parse the spawner's command line, by hand: argparse would be a tenth of the program's memory."""

from __future__ import annotations

import os
import pwd
from collections.abc import Sequence

EX_USAGE = 64
_OPTIONS_WITH_VALUE = ("--socket", "--runtime-dir", "--owner", "--users", "--cgroup-unit", "--log")

USAGE = """\
usage: runnerd-spawner --socket PATH --runtime-dir DIR [--owner USER] [--users LIST] [--cgroup-unit UNIT]
                       [--exit-when-idle] [--background --log FILE]

  --socket PATH       serve this Unix socket
  --runtime-dir DIR   store the records of runs in this directory
  --owner USER        let this user (name or uid) connect as root may, and own the runs' output files (default: only
                      the spawner's own user may connect)
  --users LIST        start processes only as these users: names separated by commas, * for people's accounts
                      (default: as root, every named user but root; else as the spawner's own)
  --cgroup-unit UNIT  make the runs' cgroups, with their limits, in the cgroup of this systemd unit of our slice
                      (default: in the spawner's own cgroup, without limits)
  --exit-when-idle    exit when no run lives and no client is connected
  --background        return once the socket is served, and write the log to --log FILE from then on
"""


class CannotServe(Exception):
    """The spawner cannot serve and exits with `status`."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Options:
    """The parsed command line. Raises CannotServe for wrong usage."""

    def __init__(self, arguments: Sequence[str]) -> None:
        values: dict[str, str] = {}
        switches: set[str] = set()
        left = iter(arguments)
        for argument in left:
            name, has_value, value = argument.partition("=")
            if name in ("--exit-when-idle", "--background") and not has_value:
                switches.add(name)
            elif name in _OPTIONS_WITH_VALUE:
                values[name] = value if has_value else next(left, "")
            else:
                raise CannotServe(f"cannot start: there is no option {argument}\n{USAGE}", EX_USAGE)
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
        raise CannotServe(f"cannot start: {name} is missing\n{USAGE}", EX_USAGE)
    return os.path.abspath(values[name])


def _unit(values: dict[str, str]) -> str | None:
    unit = values.get("--cgroup-unit")
    if unit is not None and ("/" in unit or "." not in unit.strip(".")):
        message = f"cannot use --cgroup-unit: {unit!r} is not a unit name; write one such as runnerd-runs.service"
        raise CannotServe(message, EX_USAGE)
    return unit


def _user_id(user: str) -> int:
    if user.isdecimal():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except (KeyError, ValueError):
        raise CannotServe(f"cannot use --owner: there is no user {user!r}", EX_USAGE) from None
