"""Chooses settings of Prefect's client with which a run starts sooner, and that no run needs otherwise (ADR 35).

Invariants: what the user sets wins, and only an API that is plain http, and answers as that, gets a run without the
authorities of https. Only processes that import a flow get these settings: a Prefect worker would pass them on to
other machines, and so would a flow whose tasks Dask or Ray runs elsewhere.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from runnerd.prefect_api.client import PrefectApi

CERTIFICATE = str(Path(__file__).with_name("no_authority.pem"))  # expired, no authority's, its key is destroyed
CERTIFICATE_FILE = "PREFECT_API_SSL_CERT_FILE"
VERSION_CHECK = "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED"  # of Prefect 3: a request at each start
_DEFAULTS = {CERTIFICATE_FILE: CERTIFICATE, VERSION_CHECK: "false"}
_OF_HTTPS = ("SSL_CERT_FILE", "PREFECT_API_TLS_INSECURE_SKIP_VERIFY")  # by which the user chose authorities himself
_PASSING_ON = ("prefect_dask", "prefect_ray")


class ClientDefaults:
    """Chooses the settings for interpreters, by what is known of the API."""

    def __init__(self, *, api: PrefectApi) -> None:
        self._api = api

    def variables(self, python: str) -> dict[str, str]:
        """Return them as environment variables. Reads directories that others own: not for the event loop."""
        if not _is_plain(python):
            return {}
        server = self._api.known_server
        chosen = {VERSION_CHECK} if server is not None and server.major == 3 else set()
        is_http = self._api.url.startswith("http://") and not self._api.transport.redirected
        if is_http and _is_readable_by_all(CERTIFICATE):
            chosen.add(CERTIFICATE_FILE)
        return {name: _DEFAULTS[name] for name in sorted(chosen)}


def over_fitting(
    base: Mapping[str, str], own: Mapping[str, str], *, url: str, is_own_command: bool = True
) -> dict[str, str]:
    """Put `own` over `base`, of which the settings are left out that do not fit. Pure.

    None fits another API than that at `url`; the file fits no other command than runnerd's own, which may run in a
    container.
    """
    unfit = set(_DEFAULTS) if own.get("PREFECT_API_URL") != url else set()
    if not is_own_command or any(name in own for name in _OF_HTTPS):
        unfit.add(CERTIFICATE_FILE)
    return {**{key: value for key, value in base.items() if key not in unfit}, **own}


def _is_plain(python: str) -> bool:
    """Whether the interpreter's own directories have Prefect, and nothing that hands tasks to other machines."""
    prefix = Path(os.path.abspath(python)).parent.parent
    try:
        for packages in prefix.glob("lib/python3*/*-packages"):
            if (packages / "prefect").is_dir():
                return not any((packages / name).exists() for name in _PASSING_ON)
    except OSError:  # a directory that this user may not read
        return False
    return False


def _is_readable_by_all(path: str) -> bool:
    try:
        parents = [os.stat(parent).st_mode & stat.S_IXOTH for parent in Path(path).parents]
        return all(parents) and bool(os.stat(path).st_mode & stat.S_IROTH)
    except OSError:
        return False
