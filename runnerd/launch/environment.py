"""Builds the environment that every process of a deployment or pool starts from.

Invariant: the environment is built from nothing, so no variable of the daemon's or of systemd's reaches a flow.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass

from runnerd.config import parse_environment_file
from runnerd.core.errors import ConfigError
from runnerd.core.settings import RunSettings
from runnerd.system.regular_files import open_regular

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The passwd entry of the user that a process runs as."""

    name: str
    home: str
    shell: str


def base_environment(account: Account, run: RunSettings, *, host: Mapping[str, str]) -> dict[str, str]:
    """Build a login's variables for `account`, with the interpreter's folder in PATH and LANG, LC_*, TZ from `host`."""
    interpreter_dir = os.path.dirname(run.python)
    path = f"{interpreter_dir}:{PATH}" if interpreter_dir and interpreter_dir not in PATH.split(":") else PATH
    locale = {key: value for key, value in host.items() if key in ("LANG", "TZ") or key.startswith("LC_")}
    return {
        "LANG": "C.UTF-8",
        **locale,
        "PATH": path,
        "HOME": account.home,
        "USER": account.name,
        "LOGNAME": account.name,
        "SHELL": account.shell or "/bin/sh",
        "PYTHONUNBUFFERED": "1",  # `runnerctl logs -f` follows the output file, so each line has to be there at once
    }


class Environments:
    """Builds environments from run settings; `environ` is the daemon's own, of which LANG, LC_* and TZ are copied."""

    def __init__(self, *, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def build(self, run: RunSettings) -> dict[str, str] | str:
        """Build the whole environment of a process that is no flow run, or a sentence why it cannot be built."""
        layers = self.build_layers(run)
        if isinstance(layers, str):
            return layers
        base, from_file = layers
        return {**base, **from_file, **run.environment}

    def build_layers(self, run: RunSettings) -> tuple[dict[str, str], Mapping[str, str]] | str:
        """Build the base environment and read environment_file's variables, or a sentence why that is impossible."""
        try:
            entry = pwd.getpwnam(run.user) if run.user else pwd.getpwuid(os.geteuid())
        except KeyError:
            return f"no such user {run.user}" if run.user else f"uid {os.geteuid()} has no passwd entry"
        account = Account(name=entry.pw_name, home=entry.pw_dir, shell=entry.pw_shell)
        base = base_environment(account, run, host=self._environ)
        if run.environment_file is None:
            return base, {}
        try:
            with open(run.environment_file, encoding="utf-8", opener=open_regular) as file:
                return base, parse_environment_file(file.read())
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            return f"environment_file {run.environment_file}: {why}"
        except ConfigError as error:
            return f"environment_file {run.environment_file}: {error}"
