"""The paths of runnerd's directories and sockets: one rule for the daemon and for runnerctl.

A flag wins over systemd's variable, and systemd's variable over the default of the host (root) or of the user (XDG).
Pure: the environment and the user are arguments; nothing is read from the system and nothing is created. runnerctl
imports this module at every call, so `Paths` is a NamedTuple: importing `dataclasses` would cost more than the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

SYSTEM_RUNTIME = "/run/runnerd"
SYSTEMD = "/run/systemd/system"  # exists exactly where systemd is the service manager


class Paths(NamedTuple):
    """The directories of one runnerd. `credentials` is None when systemd passed none.

    `managed_spawner` is the socket of a spawner that its own systemd unit starts; None when the daemon starts the
    spawner itself.
    """

    config: str
    runtime: str
    state: str
    log: str
    credentials: str | None
    managed_spawner: str | None = None

    @property
    def control_socket(self) -> str:
        return control_socket(self.runtime)

    @property
    def spawner_dir(self) -> str:
        """The spawner's directory: not inside `runtime`, which systemd removes when the daemon stops."""
        return f"{self.runtime}-spawner"

    @property
    def spawner_socket(self) -> str:
        return self.managed_spawner or f"{self.spawner_dir}/spawner.sock"


def resolve_paths(
    *,
    environ: Mapping[str, str],
    root: bool,
    config: str | None = None,
    runtime: str | None = None,
    state: str | None = None,
    log: str | None = None,
) -> Paths:
    """Resolve each directory from its flag, else from systemd's variable, else from the default of root or user."""

    def pick(flag: str | None, variable: str, default: str) -> str:
        return _without_slash(flag or _first(environ, variable) or default)

    base = _system_defaults() if root else _user_defaults(environ)
    return Paths(
        config=pick(config, "CONFIGURATION_DIRECTORY", base.config),
        runtime=pick(runtime, "RUNTIME_DIRECTORY", base.runtime),
        state=pick(state, "STATE_DIRECTORY", base.state),
        log=pick(log, "LOGS_DIRECTORY", base.log),
        credentials=_first(environ, "CREDENTIALS_DIRECTORY"),
        managed_spawner=environ.get("RUNNERD_SPAWNER_SOCKET") or None,
    )


def control_socket(runtime: str) -> str:
    """Return the control socket of the daemon whose runtime directory is `runtime`."""
    return f"{runtime}/control.sock"


def _first(environ: Mapping[str, str], variable: str) -> str | None:
    """Return the first directory of a variable: systemd joins several of one kind with colons."""
    return environ.get(variable, "").split(":")[0] or None


def _without_slash(path: str) -> str:
    """Strip trailing slashes, so that `runtime + "-spawner"` is a sibling of `runtime` and not inside `runtime`."""
    return path.rstrip("/") or "/"


def _system_defaults() -> Paths:
    return Paths("/etc/runnerd", SYSTEM_RUNTIME, "/var/lib/runnerd", "/var/log/runnerd", None)


def _user_defaults(environ: Mapping[str, str]) -> Paths:
    home = environ.get("HOME") or "/"
    config = environ.get("XDG_CONFIG_HOME") or f"{home}/.config"
    state = (environ.get("XDG_STATE_HOME") or f"{home}/.local/state") + "/runnerd"
    xdg_runtime = environ.get("XDG_RUNTIME_DIR")
    runtime = f"{xdg_runtime}/runnerd" if xdg_runtime else f"{state}/run"
    return Paths(f"{config}/runnerd", runtime, state, f"{state}/log", None)
