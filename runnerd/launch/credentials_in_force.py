"""Holds the credentials in force: those of the files, or the last ones that could be read.

Invariants: a credential file that cannot be read any more takes no credentials away; `problems` says so until it can.
Such a file is not read at each request, because it may be on a disk that does not answer, for which all would wait.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import replace

from runnerd.config.in_force import ConfigInForce
from runnerd.core.errors import ApiDenied
from runnerd.core.place import Place, Problem
from runnerd.core.problems import Problems
from runnerd.files.bounded_calls import BoundedCalls, Unanswered
from runnerd.prefect_api.credentials import Credentials

RETRY_S = 60.0
_KEYS = ("api.key_file", "api.auth_string_file")


class CredentialsInForce:
    """Reads the credentials: `read` for a flow or after a denial, `renew` at a reload, `run` while they cannot be."""

    def __init__(
        self, *, read: Callable[[], Credentials], config: ConfigInForce, calls: BoundedCalls, problems: Problems
    ) -> None:
        """`read` reads the files; it raises ApiDenied."""
        self._read = read
        self._config = config
        self._calls = calls
        self._last: Credentials | None = None
        self._why: str | None = None  # the files cannot be read now
        self._one_at_a_time = asyncio.Lock()  # or a read that began before a reload would undo what the reload read
        problems.register(self.problems)

    def known(self) -> Credentials:
        """Return the last credentials that could be read; only the first call reads files. Raises ApiDenied."""
        if self._last is None:
            if self._why is None:
                return self.read()
            raise ApiDenied(self._why)
        return replace(self._last, outdated=self._why is not None)

    async def run(self) -> None:
        """While the files cannot be read, read them again every RETRY_S."""
        while True:
            await asyncio.sleep(RETRY_S)
            if self._why is not None:
                await self.renew()

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

    async def renew(self) -> None:
        """Read the files now, off the event loop; `problems` says why they cannot be read."""
        async with self._one_at_a_time:
            api = self._config.settings().api
            file = api.key_file or api.auth_string_file
            try:
                found = await self._calls.call(os.path.dirname(file) if file else "/", self._read)
            except ApiDenied as error:
                self._why = str(error)
                return
            except OSError as error:  # no thread can be started
                self._why = f"cannot read the credential file {file}: {error.strerror}"
                return
            if isinstance(found, Unanswered):
                self._why = f"cannot read the credential file {file}: it {found.words}"
                return
            self._why, self._last = None, found

    def problems(self) -> list[Problem]:
        """Return why the files cannot be read, at the key that names the file; nothing while they can."""
        if self._why is None:
            return []
        effect = "no request is made until it can be" if self._last is None else "the last good one stays in use"
        return [Problem(message=f"{self._why}; {effect}", place=self._place())]

    def _place(self) -> Place | None:
        places = self._config.current.places
        return next((places[key] for key in _KEYS if key in places), None)
