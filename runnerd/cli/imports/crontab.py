"""Reads the lines of a crontab that start Prefect's programs or a script that serves."""

from __future__ import annotations

import pwd
import re
from collections.abc import Iterator
from dataclasses import dataclass

_VARIABLE = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*")
_TIMES = re.compile(r"\s*(@[a-z]+|(?:\S+\s+){4}\S+)\s+(.+)", re.S)
_SYSTEM = ("/etc/crontab", "/etc/cron.d/")
_SPOOLS = ("/var/spool/cron/crontabs/", "/var/spool/cron/")


@dataclass(frozen=True, slots=True)
class CronLine:
    """One command with its line, its times (`@reboot`, `0 2 * * *`), its user if the crontab says one."""

    number: int
    times: str
    command: str
    user: str | None
    environment: dict[str, str]


def read_crontab(text: str, *, path: str | None) -> Iterator[CronLine]:
    """Yield the commands of a crontab; the one at `path` says users if it is the system's."""
    is_system = path is not None and path.startswith(_SYSTEM)
    owner = next((path.removeprefix(spool) for spool in _SPOOLS if path is not None and path.startswith(spool)), None)
    environment: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        times = _TIMES.fullmatch(line)
        if times is None or (
            _VARIABLE.fullmatch(line) and not line.lstrip().startswith(("@", "*")) and "=" in line.split()[0]
        ):
            if (variable := _VARIABLE.fullmatch(line)) is not None:
                environment[variable[1]] = variable[2].strip("'\"")
            continue
        command, user = times[2], owner
        if is_system:
            user, _, command = command.partition(" ")
        own = {key: value for key, value in environment.items() if key not in ("SHELL", "MAILTO", "HOME", "LOGNAME")}
        yield CronLine(number, times[1], command.replace("\\%", "%").strip(), user, own)


def home_of(user: str | None) -> str:
    """Return the directory in which cron starts the commands of `user`."""
    try:
        return pwd.getpwnam(user).pw_dir if user else "/"
    except KeyError:
        return "/"
