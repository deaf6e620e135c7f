"""Finds out by which environment files are to be judged: the running daemon's, its units', or that of this shell.

The daemon's own is asked first: as whom its spawner starts flows, and which user and URL its environment has, the files
do not say.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from runnerd.config import HostDefaults, find_defaults
from runnerd.control.client import ControlClient, Json
from runnerd.core.errors import ControlError
from runnerd.spawner.child.users import AllowedUsers
from runnerd.system.service_environment import merge_environments, read_service_environment

DAEMON, UNITS, SHELL = "daemon", "units", "environment"
_ANSWER_S = 10.0  # a check of files goes on without a daemon that hangs


class Judging(NamedTuple):
    """What the files are judged by, and where it comes from: DAEMON, UNITS or SHELL."""

    defaults: HostDefaults
    source: str

    def describe(self) -> str | None:
        """Say on which list users were judged where it may not be the daemon's; None where nothing is to be said."""
        if self.source != SHELL or self.defaults.users is None:
            return None
        listed = self.defaults.users.describe()
        return (
            f"users of flows are judged by the environment of this shell ({listed}), because no runnerd with these"
            " files answers; a runnerd with another RUNNERD_FLOW_USERS or RUNNERD_FLOW_USER judges otherwise"
        )


def find_judging(
    client: ControlClient, directory: str, *, environ: Mapping[str, str], service: Mapping[str, str], root: bool
) -> Judging:
    """Find what the files in `directory` are judged by; `service` is the environment of the units, empty without."""
    defaults = find_defaults(merge_environments(environ, service), root=root)
    if (asked := _ask_daemon(client, directory)) is not None:
        return Judging(_take(defaults, asked), DAEMON)
    return Judging(defaults, UNITS if service else SHELL)


def read_judging(client: ControlClient, directory: str) -> Judging:
    """Find what the files in `directory` are judged by on this host."""
    service = read_service_environment(directory)
    return find_judging(client, directory, environ=os.environ, service=service, root=os.geteuid() == 0)


def _ask_daemon(client: ControlClient, directory: str) -> Mapping[str, Json] | None:
    """Ask the daemon what it has besides its files; None without an answer, or if its files are others."""
    try:
        service = ControlClient(client.socket_path, timeout_s=_ANSWER_S).get("/v1/config").get("service")
    except ControlError:
        return None
    is_its = isinstance(service, dict) and os.path.realpath(service["directory"]) == os.path.realpath(directory)
    return service if is_its else None


def _take(defaults: HostDefaults, service: Mapping[str, Json]) -> HostDefaults:
    users = service["users"]
    return replace(
        defaults,
        api_url=service["api_url"],
        flow_user=service["flow_user"],
        users=AllowedUsers.from_wire(users) if users is not None else None,
    )
