"""Reads the environment that systemd gives the packaged daemon and its spawner, for checks outside the service."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping

from runnerd.system.paths import SYSTEMD, resolve_paths

_LIMIT_S = 5.0
UNITS = ("runnerd.service", "runnerd-spawner.service")


def read_service_environment(config: str) -> dict[str, str]:
    """Read the Environment= of the units; empty unless `config` is the directory of the host and the units exist."""
    if config != resolve_paths(environ={}, root=True).config or not os.path.isdir(SYSTEMD):
        return {}
    argv = ["systemctl", "show", "--property=LoadState,Environment", *UNITS]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_LIMIT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return {}  # no answer from systemd: the check goes on without what only systemd knows
    return parse_environments(done.stdout)


def merge_environments(shell: Mapping[str, str], service: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the units, and of the shell only what is none of runnerd's own variables.

    Without units, all of the shell's.
    """
    others = {name: value for name, value in shell.items() if not (service and name.startswith("RUNNERD_"))}
    return {**others, **service}


def parse_environments(text: str) -> dict[str, str]:
    """Parse what systemctl show printed of the units; empty unless both are loaded."""
    units = [dict(line.split("=", 1) for line in part.splitlines() if "=" in line) for part in text.split("\n\n")]
    if [unit.get("LoadState") for unit in units] != ["loaded"] * len(UNITS):
        return {}
    words = [word for unit in units for word in shlex.split(unit.get("Environment", ""))]
    return dict(word.split("=", 1) for word in words if "=" in word)
