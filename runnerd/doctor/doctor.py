"""Takes all looks at once and puts what they find into one document.

Invariant: everybody gets an answer within the longest limit of a look, and each look one check at least.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from runnerd.core.place import Json
from runnerd.doctor.checks import Check, document
from runnerd.doctor.deployments import look_at_deployments, look_at_journal, look_at_loops
from runnerd.doctor.interpreters import Interpreters
from runnerd.doctor.look import Look, Looks
from runnerd.doctor.machine import (
    look_at_config_files,
    look_at_credentials,
    look_at_directories,
    look_at_disks,
    look_at_systemd,
    look_at_users,
)
from runnerd.doctor.prefect import Asked, look_at_api, look_at_clock, look_at_server
from runnerd.doctor.spawner import look_at_files, look_at_spawner
from runnerd.doctor.subject import Subject
from runnerd.log.log import Log

_LOOKS: tuple[tuple[str, Callable[[Subject], Coroutine[Any, Any, Sequence[Check]]]], ...] = (
    ("dbus", look_at_systemd),
    ("loops", look_at_loops),
    ("spawner", look_at_spawner),
    ("open files", look_at_files),
    ("journal", look_at_journal),
    ("directories", look_at_directories),
    ("disks", look_at_disks),
    ("configuration files", look_at_config_files),
    ("credentials", look_at_credentials),
    ("configuration", look_at_deployments),
    ("users", look_at_users),
)


class Doctor:
    """`more` are looks of whoever builds it, taken after the others."""

    def __init__(self, *, subject: Subject, log: Log, more: Sequence[Look] = ()) -> None:
        asked = Asked(api=subject.api)
        self._looks = Looks(log=log)
        self._table = (
            Look(name="api", take=lambda: look_at_api(subject, asked)),
            Look(name="server version", take=lambda: look_at_server(asked)),
            Look(name="clock", take=lambda: look_at_clock(subject, asked)),
            *(Look(name=name, take=partial(look, subject)) for name, look in _LOOKS),
        )
        self._interpreters = Interpreters(subject=subject, asked=asked)
        self._more = tuple(more)

    async def examine(self) -> Json:
        """The document of all checks, in one order always."""
        looks = [*self._table, *self._interpreters.looks(), *self._more]
        found = await asyncio.gather(*map(self._looks.take, looks))
        return document(check for checks in found for check in checks)
