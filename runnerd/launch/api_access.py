"""How this host reaches Prefect: the credentials in force, for us and for the flows we start.

Invariant: files are read at every use, so a rotated key needs no restart; what is secret stays out of every repr.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace

from runnerd.config.in_force import ConfigInForce
from runnerd.core.errors import ApiDenied
from runnerd.launch.spec import ApiAccess
from runnerd.prefect_api.credentials import Credentials, credential_files

CREDENTIAL = "prefect-api-key"


def credentials_of(
    config: ConfigInForce, *, environ: Mapping[str, str], directory: str | None
) -> Callable[[], Credentials]:
    """What key_file or auth_string_file hold; else systemd's credential, else Prefect's own variables."""

    def read() -> Credentials:
        api = config.settings().api
        if api.key_file is None and api.auth_string_file is None:
            given = os.path.join(directory, CREDENTIAL) if directory else None
            if given is not None and os.path.exists(given):
                return credential_files(replace(api, key_file=given))()
            key, auth = environ.get("PREFECT_API_KEY"), environ.get("PREFECT_API_AUTH_STRING")
            return Credentials(key=key or None, auth_string=auth or None)
        return credential_files(api)()

    return read


def access_of(url: str, config: ConfigInForce, credentials: Callable[[], Credentials]) -> Callable[[], ApiAccess]:
    """The same access for a flow, as the variables Prefect's client reads."""

    def read() -> ApiAccess:
        try:
            found = credentials()
        except ApiDenied:
            found = Credentials()  # the flow will be denied as we are, and `status` says why
        environment: dict[str, str] = {}
        if found.auth_string is not None:
            environment["PREFECT_API_AUTH_STRING"] = found.auth_string
        if found.key is not None:
            environment["PREFECT_API_KEY"] = found.key
        headers = config.settings().api.headers
        if headers:
            environment["PREFECT_CLIENT_CUSTOM_HEADERS"] = json.dumps(dict(headers))
        return ApiAccess(url=url, environment=environment)

    return read
