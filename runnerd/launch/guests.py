"""Makes the launch specs of guests: runs of no deployment or pool of this host, that were requested by their ids.

Invariants: the user, interpreter, limits and environment of a guest are those of the host's own `run:`, whoever
requested the run and whatever the API says of it (ADR 40); what prevents a start is returned as one sentence. The
daemon opens no file that a request names: only the guest's own process does, as its user.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace

from runnerd.config.in_force import ConfigInForce
from runnerd.core.guests import Guest
from runnerd.core.machine import RunRecord
from runnerd.core.process import LaunchSpec
from runnerd.core.settings import HostRunSettings
from runnerd.files.bounded_calls import Unanswered
from runnerd.launch.environment import Environments
from runnerd.launch.prepared import Prepared
from runnerd.launch.scratch import scratch_directory
from runnerd.launch.spec import PROGRAM, ApiAccess, flow_environment, hooks_spec, program_argv, program_text, run_spec

ENTRYPOINT = "PREFECT__FLOW_ENTRYPOINT"
_ANOTHER_USER = "run.user of this host has changed since the run was requested; request it again"
_UNSET = "the configuration in force does not say how"  # only a daemon under test has such a one


class GuestLauncher:
    """Launches guests by the configuration in force."""

    def __init__(
        self,
        *,
        config: ConfigInForce,
        access: Callable[[], ApiAccess],
        output_dir: str,
        environments: Environments,
    ) -> None:
        self._config = config
        self._access = access
        self._output_dir = output_dir
        self._environments = environments

    async def prepare(self, record: RunRecord) -> Prepared:
        """Make the launch spec of this attempt, or a sentence why it cannot be started."""
        host = self._config.current.host_run
        if host is None or record.guest is None:
            return Prepared(start=_UNSET)
        run = host.run
        if run.user != record.guest.user:  # a claim may wait for the API for hours, and the permission was for one user
            return Prepared(start=_ANOTHER_USER)
        environment = await self._environments.build_layers(run)
        if isinstance(environment, str | Unanswered):
            return Prepared(start=environment)
        base, from_file = environment
        access = self._access()
        layers = {"base": base, "api": access.environment, "file": from_file, "run": run.environment}
        spec = guest_spec(
            record,
            record.guest,
            host,
            environment=flow_environment(run, access=access, base=base, file_environment=from_file),
            worker=self._config.host_name(),
            output=os.path.join(self._output_dir, f"{record.id}.{record.attempt}.log"),
        )
        return Prepared(start=spec, user=run.user or base["USER"], layers=layers).with_commands(run)

    async def prepare_hooks(self, record: RunRecord) -> LaunchSpec | str | Unanswered:
        """Make the launch spec of the run's hooks, or say why the hooks cannot be run, or not yet."""
        host, flow = self._config.current.host_run, (await self.prepare(record)).start
        if host is None or isinstance(flow, str | Unanswered):
            return flow
        return hooks_spec(flow, record, program=program_text("run_hooks"), timeout_s=host.run.hook_timeout_s)


def guest_spec(
    record: RunRecord,
    guest: Guest,
    host: HostRunSettings,
    *,
    environment: Mapping[str, str],
    worker: str,
    output: str,
) -> LaunchSpec:
    """Make the launch spec of this attempt of a guest, from the environment in which a flow of the host is imported.

    Without an entrypoint Prefect's own engine reads the deployment, pulls its code and imports that.
    """
    run = host.run
    directory = working_directory(guest, host)
    tmp = environment.get("TMPDIR") or "/tmp"
    its = {key: value for key, value in environment.items() if key != ENTRYPOINT}
    its |= {
        "PREFECT__WORKER_NAME": worker,
        "PREFECT__FLOW_NAME": record.flow,
        "PREFECT__FLOW_RUN_ID": record.id,
        "PREFECT__ENABLE_CANCELLATION_AND_CRASHED_HOOKS": "false",  # the daemon runs them (ADR 16)
        "RUNNERD_RUN_ID": record.id,
        PROGRAM: program_text("run_engine"),  # for either major: the host's interpreter is not inspected
    }
    if record.deployment_id is not None:
        its |= {
            "PREFECT__DEPLOYMENT_ID": record.deployment_id,
            "PREFECT__DEPLOYMENT_NAME": guest.deployment,
            "RUNNERD_DEPLOYMENT": guest.deployment,
        }
    if guest.entrypoint is not None:
        its[ENTRYPOINT] = guest.entrypoint
    spec = run_spec(
        record,
        run,
        argv=program_argv(run.python, "prefect.engine"),
        environment=its,
        working_directory=directory or scratch_directory(record, tmp=tmp),
        output=output,
    )
    return replace(spec, make_directory=directory is None)


def working_directory(guest: Guest, host: HostRunSettings) -> str | None:
    """Return where the guest runs: as the host's run: says, else beside the file that was named.

    None: in a scratch directory, into which Prefect's engine may copy or clone the code.
    """
    if not host.scratch:
        return host.run.working_directory
    path = (guest.entrypoint or "").rpartition(":")[0]
    return os.path.dirname(path) if os.path.isabs(path) else None


def describe_unfit_entrypoint(entrypoint: str) -> str | None:
    """Say what is wrong with an entrypoint that a request names; None for a good one. Opens nothing."""
    code, _, function = entrypoint.rpartition(":")
    if not code or not all(part.isidentifier() for part in function.split(".")):
        return "it is not FILE.py:FLOW or MODULE:FLOW"
    if "/" in code or code.endswith(".py"):
        if not os.path.isabs(code):
            return "the path of the file must be absolute"
        return None if os.path.normpath(code) == code else "the path of the file has ., .. or // in it"
    return None if all(part.isidentifier() for part in code.split(".")) else "it is not FILE.py:FLOW or MODULE:FLOW"
