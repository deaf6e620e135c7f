"""Looks at the interpreters that deployments and pools name: each is asked, as its flows' user, which Prefect it has.

Invariants: an interpreter runs in the spawner's hands only, bounded in time, as the user its flows run as; what it is
asked takes a tenth of a second and imports nothing of the user's; a daemon that ends meanwhile leaves nothing behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from runnerd.core.errors import SpawnerError
from runnerd.core.process import LaunchSpec
from runnerd.core.units import format_duration
from runnerd.doctor.checks import Check, error, ok, unknown, warning
from runnerd.doctor.look import Look, in_thread
from runnerd.doctor.prefect import FLOOR, Asked
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
# What is asked; prefect-client is Prefect without its server, and runs flows as well.
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
class Interpreter:
    """One program under one user, which is one check; `sources` are whose flows it runs."""

    python: str
    user: str | None
    group: str | None
    sources: tuple[Source, ...]

    @property
    def name(self) -> str:
        who = (self.user or "") + (f":{self.group}" if self.group else "")
        return f"python {self.python}" + (f" as {who}" if who else "")


@dataclass(frozen=True, slots=True)
class Answer:
    """`prefect` is None where it has none."""

    python: str
    prefect: str | None


def interpreters_of(sources: Iterable[Source]) -> list[Interpreter]:
    """Each interpreter once, in the order of the sources."""
    found: dict[tuple[str, str | None, str | None], list[Source]] = {}
    for source in sources:
        run = source.run
        found.setdefault((run.python, run.user, run.group), []).append(source)
    return [Interpreter(*key, tuple(members)) for key, members in found.items()]


class Interpreters:
    """A look for each; at most a few of them run at once."""

    def __init__(self, *, subject: Subject, asked: Asked) -> None:
        self._subject = subject
        self._asked = asked
        self._few = asyncio.Semaphore(_AT_ONCE)

    def looks(self) -> list[Look]:
        return [self._look(one) for one in interpreters_of(self._subject.sources())]

    def _look(self, one: Interpreter) -> Look:
        async def take() -> Sequence[Check]:
            if not self._subject.link.connected:
                return [unknown(one.name, "cannot be asked without a spawner", "mend the spawner check first")]
            async with self._few:
                answer = await self._ask(one)
            return [interpreter_check(one, answer, await self._asked.server())]

        return Look(name=one.name, take=take, limit_s=_LIMIT_S)

    async def _ask(self, one: Interpreter) -> Answer | str:
        """What it answers, or why it does not."""
        spec = await in_thread(lambda: self._spec(one))
        if isinstance(spec, str):
            return spec
        try:
            outcome = await run_helper(spec, link=self._subject.link, answer_max=_ANSWER_MAX)
        except SpawnerError as why:
            return str(why)
        return read_answer(outcome.answer) or _why_not(outcome)

    def _spec(self, one: Interpreter) -> LaunchSpec | str:
        run = one.sources[0].run
        environment = self._subject.environments.merged(run)
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


def read_answer(text: str) -> Answer | None:
    """What PROGRAM wrote; None where that is nothing or something else."""
    if not text.endswith("\n"):
        return None
    words = text.split()
    return Answer(words[0], words[1] if len(words) == 2 else None) if 1 <= len(words) <= 2 else None


def _why_not(outcome: HelperOutcome) -> str:
    seen = outcome.record
    if seen is None or seen.error is not None:
        return describe_end(seen)
    if seen.stop_reason == "timeout":
        return f"it did not answer within {format_duration(_ANSWER_S)}"
    last = last_line(outcome.output)
    return f"it {describe_end(seen)}" + (f": {last}" if last else " and said nothing")


# --- what to make of it ---------------------------------------------------------------------------------------


def interpreter_check(one: Interpreter, answer: Answer | str, server: ServerInfo | str) -> Check:
    """`server` decides which major of Prefect is wanted, where it is known."""
    if isinstance(answer, str):
        detail = f"{_used(one)}, and it cannot be run: {answer.removeprefix('cannot start: ')}"
        return error(one.name, detail, "mend that, or name an interpreter that has Prefect in run.python")
    if answer.prefect is None:
        detail = f"{_used(one)}, and it has no Prefect"
        return error(one.name, detail, f"{_install(one, server)}, or name another interpreter in run.python")
    broken = next((e.problem for e in one.sources if e.problem and "cannot import prefect" in e.problem), None)
    if broken is not None:
        return error(one.name, f"it has Prefect {answer.prefect}, but {broken}", _install(one, server))
    version = version_of(answer.prefect)
    if not isinstance(server, str) and version is not None and version[0] != server.major:
        detail = f"{_used(one)}, and its Prefect {answer.prefect} does not work with a server of {server.version}"
        return error(one.name, detail, _install(one, server))
    if version is not None and version < FLOOR:
        detail = f"its Prefect {answer.prefect} is older than anything runnerd is tested with"
        return warning(one.name, detail, _install(one, server))
    return ok(one.name, f"Prefect {answer.prefect}, Python {answer.python}; {_used(one)}")


def _used(one: Interpreter) -> str:
    names = [source.name for source in one.sources]
    return f"{names[0]} uses it" if len(names) == 1 else f"{names[0]} and {len(names) - 1} more use it"


def _install(one: Interpreter, server: ServerInfo | str) -> str:
    old = not isinstance(server, str) and server.major == 2
    return f"{one.python} -m pip install 'prefect{'>=2.20,<3' if old else '>=3,<4'}'"
