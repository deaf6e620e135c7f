"""Holds the credentials in force: those of the files, or the last ones that could be read.

Invariant: a credential file that cannot be read any more takes no credentials away; `problems` says so until it can.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

from runnerd.config.in_force import ConfigInForce
from runnerd.core.errors import ApiDenied
from runnerd.core.place import Place, Problem
from runnerd.core.problems import Problems
from runnerd.files.bounded_calls import BoundedCalls, Unanswered
from runnerd.prefect_api.credentials import Credentials

_KEYS = ("api.key_file", "api.auth_string_file")


class CredentialsInForce:
    """Reads the credentials: `read` whenever they are needed, `renew` at a reload."""

    def __init__(
        self, *, read: Callable[[], Credentials], config: ConfigInForce, calls: BoundedCalls, problems: Problems
    ) -> None:
        """`read` reads the files; it raises ApiDenied."""
        self._read = read
        self._config = config
        self._calls = calls
        self._last: Credentials | None = None
        self._why: str | None = None  # the files cannot be read now
        problems.register(self.problems)

    def read(self) -> Credentials:
        """Return the files' credentials, else the last ones that could be read. Raises ApiDenied without either."""
        try:
            found = self._read()
        except ApiDenied as error:
            self._why = str(error)
            if self._last is None:
                raise
            return replace(self._last, outdated=True)
        self._why, self._last = None, found
        return found

    async def renew(self) -> bool:
        """Read the files now; return whether they can be read, or refuse at once, so that reading blocks nobody."""
        api = self._config.settings().api
        file = api.key_file or api.auth_string_file
        try:
            found = await self._calls.call(os.path.dirname(file) if file else "/", self._read)
        except ApiDenied as error:
            self._why = str(error)
            return True
        if isinstance(found, Unanswered):
            self._why = f"cannot read the credential file {file}: it {found.words}"
            return False
        self._why, self._last = None, found
        return True

    def problems(self) -> list[Problem]:
        """Return why the files cannot be read, at the key that names the file; nothing while they can."""
        if self._why is None:
            return []
        effect = "no request is made until it can be" if self._last is None else "the last good one stays in use"
        return [Problem(message=f"{self._why}; {effect}", place=self._place())]

    def _place(self) -> Place | None:
        places = self._config.current.places
        return next((places[key] for key in _KEYS if key in places), None)
