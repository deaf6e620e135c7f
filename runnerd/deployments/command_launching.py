"""Makes the launch specs of runs of commands, and puts on disk what their processes and their output need.

Invariants: what prevents a start is returned as one sentence, never raised; a file of an attempt is made once, so that
a daemon that prepares the same attempt again neither repeats nor loses output.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from runnerd.core.command_text import Unfit
from runnerd.core.commands import PROGRESS_SUFFIX, Command
from runnerd.core.errors import ApiError, ApiRejected
from runnerd.core.machine import RunRecord
from runnerd.core.place import Json
from runnerd.core.prefect import FlowRun
from runnerd.core.process import LaunchSpec
from runnerd.core.settings import Deployment
from runnerd.deployments.launching import FlowLauncher
from runnerd.deployments.registry import Entry, Registry
from runnerd.deployments.sources.run_code import RunCode
from runnerd.files.bounded_calls import BoundedCalls, Unanswered
from runnerd.launch.command_spec import command_spec
from runnerd.launch.environment import BASE_NAMES, Environments
from runnerd.launch.prepared import Prepared
from runnerd.prefect_api.client import PrefectApi
from runnerd.processes.link import SpawnerLink

_WRITE = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_GONE = "its deployment is not configured on this host any more"
_NO_COMMAND = "its deployment has no command any more"
_OLD_SPAWNER = "the spawner is of an older version, which cannot give it its standard input; restart runnerd-spawner"


class CommandLauncher:
    """Launches runs of commands: the parameters are read from the API, all else is in the registry."""

    def __init__(
        self,
        *,
        api: PrefectApi,
        registry: Registry,
        code: RunCode,
        link: SpawnerLink,
        environments: Environments,
        calls: BoundedCalls,
        output_dir: str,
    ) -> None:
        self._api = api
        self._registry = registry
        self._code = code
        self._link = link
        self._environments = environments
        self._calls = calls
        self._output_dir = output_dir

    async def prepare(self, record: RunRecord) -> Prepared:
        """Make the launch spec of this attempt, or a sentence why it cannot be started. Raises ApiError."""
        entry = self._registry.by_id(record.deployment_id)
        if entry is None or entry.deployment.command is None:
            return Prepared(start=_GONE if entry is None else _NO_COMMAND)
        found = await self._api.read_run(record.id)
        if found is None:
            return Prepared(start="the run does not exist any more")
        deployment = await self._code.find(record, entry.deployment)
        if isinstance(deployment, str):
            return Prepared(start=deployment)
        prepared, stdin = await self._make(record, deployment, entry.deployment.command, found.parameters)
        if isinstance(prepared.start, LaunchSpec) and (missing := await self._put_files(prepared.start, stdin)):
            return Prepared(start=missing)
        return prepared

    async def prepare_plan(self, record: RunRecord, run: FlowRun) -> Prepared:
        """Make the launch spec for a plan: with the parameters of this run, and without a pull or any file."""
        entry = self._registry.by_id(record.deployment_id)
        if entry is None or entry.deployment.command is None:
            return Prepared(start=_GONE if entry is None else _NO_COMMAND)
        deployment = self._code.find_known(record, entry.deployment)
        if isinstance(deployment, str):
            return Prepared(start=deployment)
        return (await self._make(record, deployment, entry.deployment.command, run.parameters))[0]

    async def _make(
        self, record: RunRecord, deployment: Deployment, command: Command, parameters: Mapping[str, Json]
    ) -> tuple[Prepared, bytes | None]:
        """Make the launch spec, and what the process gets as its standard input."""
        run = deployment.run
        # Without an interpreter, whose folder would be the first in PATH.
        found_environment = await self._environments.build_own(replace(run, python=""))
        if isinstance(found_environment, str | Unanswered):
            return Prepared(start=found_environment), None
        account, environment = found_environment
        output = os.path.join(self._output_dir, f"{record.id}.{record.attempt}.log")
        try:
            spec, stdin = command_spec(
                record,
                deployment,
                command,
                parameters=parameters,
                environment=environment,
                output=output,
            )
        except Unfit as error:
            return Prepared(start=str(error)), None
        base = {name: value for name, value in environment.items() if name in BASE_NAMES or name.startswith("LC_")}
        file = {name: value for name, value in environment.items() if name not in base}
        layers = {"base": base, "file": file, "run": run.environment}
        # The rules: the files may have changed since the claim.
        fields = {"command": command.rules, **self._code.note(record, deployment)}
        found_start = Prepared(start=spec, user=run.user or account, record_fields=fields, layers=layers)
        return found_start.with_commands(run), stdin

    async def prepare_hooks(self, record: RunRecord) -> LaunchSpec | str | Unanswered:
        """Make the launch spec of what is run after this run: its own, with its parameters as variables alone.

        A deployment that has left the files meanwhile is no reason not to run it, nor is a run that has left the API,
        whose parameters are gone with it.
        """
        entry = self._registry.last_known(record.deployment_id)
        if entry is None or entry.deployment.command is None:
            return _GONE if entry is None else _NO_COMMAND
        deployment = await self._code.find(record, entry.deployment)
        if isinstance(deployment, str):
            return deployment
        try:
            found = await self._api.read_run(record.id)
        except ApiRejected as error:
            return str(error)
        except ApiError as error:
            return Unanswered(str(error))
        command = entry.deployment.command
        bare = replace(command, argv=command.argv[:1])
        start = (await self._make(record, deployment, bare, found.parameters if found is not None else {}))[0].start
        return replace(start, stdin=None) if isinstance(start, LaunchSpec) else start

    async def _put_files(self, spec: LaunchSpec, stdin: bytes | None) -> str | Unanswered | None:
        """Write the attempt's files; say why that is not possible, now or at all."""
        hello = self._link.hello
        if stdin is not None and hello is not None and not hello.stdin:
            return _OLD_SPAWNER
        try:
            done = await self._calls.call(self._output_dir, partial(_write_files, spec, stdin))
        except OSError as error:
            return Unanswered(f"cannot write beside {spec.output}: {error.strerror}")
        return Unanswered(f"{self._output_dir}: {done.words}") if isinstance(done, Unanswered) else None


class OwnLauncher:
    """Passes the run of one of this host's own deployments to the launcher for commands or to the one for flows."""

    def __init__(
        self, *, flows: FlowLauncher, commands: CommandLauncher, of: Callable[[str | None], Entry | None]
    ) -> None:
        """`of` returns the entry of a deployment id."""
        self._flows = flows
        self._commands = commands
        self._of = of

    async def prepare(self, record: RunRecord) -> Prepared:
        entry = self._of(record.deployment_id)
        is_command = record.command is not None or (entry is not None and entry.deployment.command is not None)
        return await (self._commands if is_command else self._flows).prepare(record)

    async def prepare_plan(self, record: RunRecord, run: FlowRun) -> Prepared:
        entry = self._of(record.deployment_id)
        is_command = entry is not None and entry.deployment.command is not None
        return await (self._commands if is_command else self._flows).prepare_plan(record, run)

    async def prepare_hooks(self, record: RunRecord) -> LaunchSpec | str | Unanswered:
        return await (self._commands if record.command is not None else self._flows).prepare_hooks(record)


def _write_files(spec: LaunchSpec, stdin: bytes | None) -> None:
    """Begin the file of what the API has of the output, unless an earlier daemon did, and write the standard input.

    In this order: when the output has been sent, both are removed (output/api_logs.py).
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(f"{spec.output}{PROGRESS_SUFFIX}", _WRITE | os.O_EXCL, 0o600))
    if stdin is not None and spec.stdin is not None:
        new = f"{spec.stdin}.new"
        with open(os.open(new, _WRITE | os.O_TRUNC, 0o600), "wb") as file:
            file.write(stdin)
        os.replace(new, spec.stdin)
