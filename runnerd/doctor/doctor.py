"""Runs all checks at once and returns their results in one document.

Invariant: the document is complete within the longest time limit of a check group, and has at least one check of each
group.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from runnerd.core.place import Json
from runnerd.doctor.check_runner import CheckGroup, CheckRunner
from runnerd.doctor.checks import Check, document
from runnerd.doctor.deployments import run_deployment_checks, run_journal_checks, run_loop_checks, run_run_checks
from runnerd.doctor.interpreters import InterpreterChecks
from runnerd.doctor.machine import (
    run_config_file_checks,
    run_credentials_checks,
    run_directory_checks,
    run_disk_checks,
    run_systemd_checks,
    run_user_checks,
)
from runnerd.doctor.prefect import ServerQuery, run_api_checks, run_clock_checks, run_server_checks
from runnerd.doctor.spawner import run_open_files_checks, run_spawner_checks
from runnerd.doctor.subject import Subject
from runnerd.log.log import Log

_GROUPS: tuple[tuple[str, Callable[[Subject], Coroutine[Any, Any, Sequence[Check]]]], ...] = (
    ("dbus", run_systemd_checks),
    ("loops", run_loop_checks),
    ("spawner", run_spawner_checks),
    ("open files", run_open_files_checks),
    ("journal", run_journal_checks),
    ("directories", run_directory_checks),
    ("disks", run_disk_checks),
    ("configuration files", run_config_file_checks),
    ("credentials", run_credentials_checks),
    ("configuration", run_deployment_checks),
    ("users", run_user_checks),
    ("runs", run_run_checks),
)


class Doctor:
    """The checks of one daemon and its host; the groups in `more` come last in the document."""

    def __init__(self, *, subject: Subject, log: Log, more: Sequence[CheckGroup] = ()) -> None:
        server = ServerQuery(api=subject.api)
        self._runner = CheckRunner(log=log)
        self._groups = (
            CheckGroup(name="api", run=lambda: run_api_checks(subject, server)),
            CheckGroup(name="server version", run=lambda: run_server_checks(server)),
            CheckGroup(name="clock", run=lambda: run_clock_checks(subject, server)),
            *(CheckGroup(name=name, run=partial(run, subject)) for name, run in _GROUPS),
        )
        self._interpreters = InterpreterChecks(subject=subject, server=server)
        self._more = tuple(more)

    async def examine(self) -> Json:
        """Run all checks and return the doctor document, always in the same order."""
        groups = [*self._groups, *self._interpreters.groups(), *self._more]
        results = await asyncio.gather(*map(self._runner.run, groups))
        return document(check for checks in results for check in checks)
