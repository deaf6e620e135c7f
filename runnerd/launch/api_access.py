"""Reads the credentials for the Prefect API: the daemon's own, and the same as environment variables for flows.

Invariant: credential files are read at every use, so a rotated key needs no restart; no secret is in any repr.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace

from runnerd.config.in_force import ConfigInForce
from runnerd.core.errors import ApiDenied
from runnerd.launch.spec import ApiAccess
from runnerd.prefect_api.credentials import Credentials, checked_secret, credential_files

CREDENTIAL = "prefect-api-key"


def credentials_reader(
    config: ConfigInForce, *, environ: Mapping[str, str], directory: str | None
) -> Callable[[], Credentials]:
    """Make a reader of the credentials in force; the reader raises ApiDenied for a file that cannot be read.

    The source is api.key_file or api.auth_string_file, else systemd's credential CREDENTIAL in `directory`, else
    PREFECT_API_KEY and PREFECT_API_AUTH_STRING in `environ`.
    """

    def read() -> Credentials:
        api = config.settings().api
        if api.key_file is None and api.auth_string_file is None:
            systemd_file = os.path.join(directory, CREDENTIAL) if directory else None
            if systemd_file is not None and os.path.exists(systemd_file):
                return credential_files(replace(api, key_file=systemd_file))()
            return Credentials(
                key=_read_variable("API key", "PREFECT_API_KEY", environ),
                auth_string=_read_variable("auth string", "PREFECT_API_AUTH_STRING", environ),
            )
        return credential_files(api)()

    return read


def _read_variable(what: str, name: str, environ: Mapping[str, str]) -> str | None:
    text = environ.get(name)
    return checked_secret(text, what=what, where=name) if text else None


def access_reader(url: str, config: ConfigInForce, credentials: Callable[[], Credentials]) -> Callable[[], ApiAccess]:
    """Make a reader of the API's URL and credentials as the environment variables that Prefect's client reads."""

    def read() -> ApiAccess:
        try:
            found = credentials()
        except ApiDenied:
            found = Credentials()  # the API denies the flow as it denies the daemon, and `status` says why
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
