"""Checks the interpreters of deployments and work pools: which Prefect each has, read by running a short program.

Invariants: the spawner starts each interpreter, as the user of its runs and with a time limit. The program takes about
0.1 s and imports no user code. A daemon that ends meanwhile leaves no process and no file behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from runnerd.core.errors import SpawnerError
from runnerd.core.names import some
from runnerd.core.process import LaunchSpec
from runnerd.core.units import format_duration
from runnerd.doctor.check_runner import CheckGroup
from runnerd.doctor.checks import Check, error, ok, unknown, warning
from runnerd.doctor.prefect import FLOOR, FLOOR_TEXT, ServerQuery
from runnerd.doctor.subject import Source, Subject
from runnerd.prefect_api.answers import ServerInfo
from runnerd.prefect_api.dialect import version_of
from runnerd.processes.helper import HelperOutcome, last_line, name_helper, run_helper
from runnerd.processes.link import describe_end
from runnerd.system.directories import work_dir

_LIMIT_S, _ANSWER_S = 20.0, 15.0
_AT_ONCE = 4
_OUTPUT_BYTES = 65536
_ANSWER_MAX = 1024
# Prints the versions of Python and Prefect; prefect-client is Prefect without its server, and runs flows as well.
PROGRAM = """\
import os, sys
from importlib import metadata
found = ""
for name in ("prefect", "prefect-client"):
    try:
        found = found or metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
os.write(3, ("%d.%d %s\\n" % (sys.version_info[0], sys.version_info[1], found)).encode())
"""


@dataclass(frozen=True, slots=True)
class CheckedInterpreter:
    """One interpreter run as one user, which makes one check; `sources` are the deployments and pools that use it."""

    python: str
    user: str | None
    group: str | None
    sources: tuple[Source, ...]

    @property
    def name(self) -> str:
        who = (self.user or "") + (f":{self.group}" if self.group else "")
        return f"python {self.python}" + (f" as {who}" if who else "")


@dataclass(frozen=True, slots=True)
class Versions:
    """The versions in one interpreter; `prefect` is None when Prefect is not installed."""

    python: str
    prefect: str | None


def interpreters_of(sources: Iterable[Source]) -> list[CheckedInterpreter]:
    """Return each interpreter once, in the order of the sources; those of commands import nothing."""
    found: dict[tuple[str, str | None, str | None], list[Source]] = {}
    for source in sources:
        run = source.run
        if not source.imports:
            continue
        found.setdefault((run.python, run.user, run.group), []).append(source)
    return [CheckedInterpreter(*key, tuple(members)) for key, members in found.items()]


class InterpreterChecks:
    """Checks each interpreter; at most _AT_ONCE of them run at once."""

    def __init__(self, *, subject: Subject, server: ServerQuery) -> None:
        self._subject = subject
        self._server = server
        self._few = asyncio.Semaphore(_AT_ONCE)

    def groups(self) -> list[CheckGroup]:
        """Return a check group for each interpreter of the current deployments and pools."""
        return [self._group(one) for one in interpreters_of(self._subject.sources())]

    def _group(self, one: CheckedInterpreter) -> CheckGroup:
        async def run() -> Sequence[Check]:
            if not self._subject.link.connected:
                detail = "cannot run this interpreter: the spawner is not connected"
                return [unknown(one.name, detail, "fix the problem of the spawner check first")]
            async with self._few:
                versions = await self._read_versions(one)
            return [check_interpreter(one, versions, await self._server.read())]

        return CheckGroup(name=one.name, run=run, limit_s=_LIMIT_S)

    async def _read_versions(self, one: CheckedInterpreter) -> Versions | str:
        """Run PROGRAM in the interpreter and return the versions, or why that failed."""
        spec = await self._spec(one)
        if isinstance(spec, str):
            return spec
        try:
            outcome = await run_helper(spec, link=self._subject.link, answer_max=_ANSWER_MAX)
        except SpawnerError as why:
            return str(why)
        return parse_versions(outcome.answer) or _failure(outcome)

    async def _spec(self, one: CheckedInterpreter) -> LaunchSpec | str:
        run = one.sources[0].run
        environment = await self._subject.environments.build(run)
        if isinstance(environment, str):
            return environment
        names = name_helper(work_dir(self._subject.paths))
        return LaunchSpec(
            key=names.key,
            attempt=1,
            argv=(one.python, "-c", PROGRAM),
            environment=environment,
            working_directory=run.working_directory,
            output=names.output,
            result=names.result,
            user=one.user,
            group=one.group,
            output_max_bytes=_OUTPUT_BYTES,
            runtime_max_s=_ANSWER_S,
            stop_timeout_s=1.0,
        )


def parse_versions(text: str) -> Versions | None:
    """Parse what PROGRAM wrote; None for any other text."""
    if not text.endswith("\n"):
        return None
    words = text.split()
    return Versions(words[0], words[1] if len(words) == 2 else None) if 1 <= len(words) <= 2 else None


def _failure(outcome: HelperOutcome) -> str:
    seen = outcome.record
    if seen is None or seen.error is not None:
        return describe_end(seen)
    if seen.stop_reason == "timeout":
        return f"it did not answer within {format_duration(_ANSWER_S)}"
    last = last_line(outcome.output)
    return f"it {describe_end(seen)}" + (f": {last}" if last else " without output")


# --- the result -----------------------------------------------------------------------------------------------


def check_interpreter(one: CheckedInterpreter, versions: Versions | str, server: ServerInfo | str) -> Check:
    """Compare the Prefect of an interpreter with the server's major version, if that is known.

    `versions` and `server` are strings when they could not be read, and say why.
    """
    if isinstance(versions, str):
        detail = f"cannot run the interpreter of {_users(one)}: {versions.removeprefix('cannot start: ')}"
        return error(one.name, detail, "fix the cause, or set run.python to an interpreter that has Prefect")
    if versions.prefect is None:
        detail = f"Prefect is not installed in the interpreter of {_users(one)}"
        return error(one.name, detail, f"{_install(one, server)}, or set run.python to another interpreter")
    broken = next((e.problem for e in one.sources if e.problem and "cannot import prefect" in e.problem), None)
    if broken is not None:
        return error(one.name, f"Prefect {versions.prefect} is installed, but {broken}", _install(one, server))
    version = version_of(versions.prefect)
    if not isinstance(server, str) and version is not None and version[0] != server.major:
        pair = f"Prefect {versions.prefect} with a server of {server.version}"
        detail = f"cannot run flows of {_users(one)}: {pair} does not work, the major versions must be equal"
        return error(one.name, detail, _install(one, server))
    if version is not None and version < FLOOR:
        detail = f"Prefect {versions.prefect} is older than {FLOOR_TEXT}, the oldest version runnerd is tested with"
        return warning(one.name, detail, _install(one, server))
    return ok(one.name, f"Prefect {versions.prefect}, Python {versions.python}; used by {_users(one)}")


def _users(one: CheckedInterpreter) -> str:
    return some([source.name for source in one.sources], most=1)


def _install(one: CheckedInterpreter, server: ServerInfo | str) -> str:
    old = not isinstance(server, str) and server.major == 2
    return f"{one.python} -m pip install 'prefect{'>=2.20,<3' if old else '>=3,<4'}'"
