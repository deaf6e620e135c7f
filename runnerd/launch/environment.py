"""Builds the environment that every process of a deployment or pool starts from.

Invariant: the environment is built from nothing, so no variable of the daemon's or of systemd's reaches a flow.
"""

from __future__ import annotations

import io
import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass

from runnerd.config.environment_file import ENVIRONMENT_FILE_MAX_BYTES, parse_environment_file
from runnerd.core.errors import ConfigError
from runnerd.core.settings import RunSettings
from runnerd.files.bounded_calls import BoundedCalls, Unanswered
from runnerd.files.regular import read_regular
from runnerd.launch.client_defaults import ClientDefaults

_ACCOUNTS = "the list of this host's accounts"
# The variables of base_environment, besides those of LC_*.
BASE_NAMES = frozenset("HOME LANG LOGNAME PATH PYTHONUNBUFFERED SHELL TZ USER".split())
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

    def __init__(
        self, *, environ: Mapping[str, str], calls: BoundedCalls, client: ClientDefaults | None = None
    ) -> None:
        self._environ = environ
        self._calls = calls
        self._client = client

    async def build(self, run: RunSettings) -> dict[str, str] | str:
        """Build the whole environment of a process that imports no flow, or a sentence why it cannot be built."""
        layers = await self._read_layers(run)
        if isinstance(layers, str | Unanswered):
            return str(layers)
        base, from_file = layers
        return {**base, **from_file, **run.environment}

    async def build_own(self, run: RunSettings) -> tuple[str, dict[str, str]] | str | Unanswered:
        """Build the same, with the account's name; Unanswered, a whole sentence, where that may be possible later."""
        layers = await self._read_layers(run)
        if isinstance(layers, str | Unanswered):
            return layers
        base, from_file = layers
        return base["USER"], {**base, **from_file, **run.environment}

    async def build_layers(self, run: RunSettings) -> tuple[dict[str, str], Mapping[str, str]] | str | Unanswered:
        """Build the base environment and read environment_file's variables, or a sentence why that is impossible.

        Unanswered, with a whole sentence, where that may be possible later. The base has `client`'s settings.
        """
        layers, client = await self._read_layers(run), self._client
        if client is None or isinstance(layers, str | Unanswered):
            return layers
        # In a call of its own: a disk with one interpreter that does not answer must not hold up other accounts' runs.
        found = await self._calls.call(os.path.dirname(run.python), lambda: client.variables(run.python))
        base, from_file = layers
        return base if isinstance(found, Unanswered) else {**base, **found}, from_file

    async def _read_layers(self, run: RunSettings) -> tuple[dict[str, str], Mapping[str, str]] | str | Unanswered:
        file = run.environment_file
        # By user: a directory service that hangs for one user must not stop those that /etc/passwd has.
        place = f"{_ACCOUNTS}: {run.user}" if file is None else os.path.dirname(file)
        layers = await self._calls.call(place, lambda: self._build_layers(run))
        if isinstance(layers, Unanswered):
            return Unanswered(f"{place if file is None else f'environment_file {file}'}: {layers.words}")
        return layers

    def _build_layers(self, run: RunSettings) -> tuple[dict[str, str], Mapping[str, str]] | str:
        try:
            entry = pwd.getpwnam(run.user) if run.user else pwd.getpwuid(os.geteuid())
        except KeyError:
            return f"no such user {run.user}" if run.user else f"uid {os.geteuid()} has no passwd entry"
        account = Account(name=entry.pw_name, home=entry.pw_dir, shell=entry.pw_shell)
        base = base_environment(account, run, host=self._environ)
        if run.environment_file is None:
            return base, {}
        try:
            data = read_regular(run.environment_file, max_bytes=ENVIRONMENT_FILE_MAX_BYTES)
            return base, parse_environment_file(io.StringIO(data.decode(), newline=None).read())
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            return f"environment_file {run.environment_file}: {why}"
        except ConfigError as error:
            return f"environment_file {run.environment_file}: {error}"
