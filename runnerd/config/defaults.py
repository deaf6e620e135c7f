"""Finds the host's defaults for what the files do not say, and as whom its spawner may start flows."""

from __future__ import annotations

import pwd
import socket
import sys
from collections.abc import Mapping

from runnerd.config.load import HostDefaults
from runnerd.spawner.child.users import AllowedUsers

SERVICE_USER = "runnerd"  # of the packaged daemon


def find_defaults(environ: Mapping[str, str], *, root: bool) -> HostDefaults:
    """Read the defaults from the environment of the daemon, or of its units; `root`: this process is root.

    A spawner of systemd has its list of users in its own unit, so where `environ` does not have the list too, only the
    spawner's hello says as whom it starts flows.
    """
    managed, listed = "RUNNERD_SPAWNER_SOCKET" in environ, environ.get("RUNNERD_FLOW_USERS")
    users = None
    if managed and listed is not None:
        users = AllowedUsers(listed, root=True, owner=_find_uid(SERVICE_USER))
    elif not managed and root:
        users = AllowedUsers(listed, root=True, owner=0)
    return HostDefaults(
        hostname=socket.gethostname(),
        python=sys.executable,
        api_url=environ.get("PREFECT_API_URL"),
        flow_user=environ.get("RUNNERD_FLOW_USER") or None,
        users=users,
    )


def _find_uid(user: str) -> int | None:
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return None
