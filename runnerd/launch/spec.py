"""Makes launch specs from a run's record and its settings: for the run itself and for its hooks. Pure.

Invariants: the environment is built from nothing, so no variable of the daemon's or of systemd's reaches a flow;
secrets are passed in the environment only, never on a command line.
"""

from __future__ import annotations

import importlib.resources
import json
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, replace

from runnerd.core.machine import RunRecord
from runnerd.core.process import LaunchSpec
from runnerd.core.settings import Deployment, RunSettings
from runnerd.launch.client_defaults import over_fitting
from runnerd.launch.scratch import HOOKS_SUFFIX


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiAccess:
    """The URL of the Prefect API and the variables with its credentials; repr shows no secret."""

    url: str
    environment: Mapping[str, str]  # PREFECT_API_KEY and the like

    def __repr__(self) -> str:
        return f"ApiAccess(url={self.url!r}, environment=<{len(self.environment)} variables>)"


def absolute_entrypoint(entrypoint: str, working_directory: str) -> str:
    """Make the path of a file's entrypoint absolute; a module's entrypoint stays as it is."""
    path, _, function = entrypoint.rpartition(":")
    if not path.endswith(".py"):
        return entrypoint
    return f"{os.path.join(working_directory, path)}:{function}"


def flow_environment(
    run: RunSettings, *, access: ApiAccess, base: Mapping[str, str], file_environment: Mapping[str, str]
) -> dict[str, str]:
    """Make the environment in which a flow is imported, to be run or inspected.

    Layers, later ones win: base, API access, environment_file, environment, and last the API's URL.
    """
    own = {**access.environment, **file_environment, **run.environment, "PREFECT_API_URL": access.url}
    return over_fitting(base, own, url=access.url)


def launch_spec(
    record: RunRecord,
    deployment: Deployment,
    *,
    access: ApiAccess,
    worker: str,
    base: Mapping[str, str],
    file_environment: Mapping[str, str],
    output: str,
) -> LaunchSpec:
    """Make the launch spec of this attempt of a run of one of this host's own deployments.

    The environment is the flow's, and last the variables that make the process this flow run, which no setting may
    change. `worker` is the name of this host.
    """
    run = deployment.run
    environment = {
        **flow_environment(run, access=access, base=base, file_environment=file_environment),
        # Prefect 3's client sends these with every request, so that the server's logs say whose it was.
        "PREFECT__WORKER_NAME": worker,
        "PREFECT__DEPLOYMENT_ID": record.deployment_id or "",
        "PREFECT__DEPLOYMENT_NAME": deployment.name,
        "PREFECT__FLOW_NAME": record.flow,
        "PREFECT__FLOW_RUN_ID": record.id,
        # The daemon runs the hooks on cancellation and crash (runs/hooks.py): a killed process can run none.
        "PREFECT__ENABLE_CANCELLATION_AND_CRASHED_HOOKS": "false",
        # With an entrypoint the engine neither reads the deployment nor pulls code: the code is on this host already.
        "PREFECT__FLOW_ENTRYPOINT": absolute_entrypoint(deployment.entrypoint, run.working_directory),
        "RUNNERD_RUN_ID": record.id,
        "RUNNERD_DEPLOYMENT": deployment.name,
    }
    environment[PROGRAM] = program_text("run_engine")
    argv, directory = program_argv(run.python, "prefect.engine"), run.working_directory
    return run_spec(record, run, argv=argv, environment=environment, working_directory=directory, output=output)


def run_spec(
    record: RunRecord,
    run: RunSettings,
    *,
    argv: tuple[str, ...],
    environment: Mapping[str, str],
    working_directory: str,
    output: str,
) -> LaunchSpec:
    """Make the launch spec of a run's process, with all limits of `run`, and with intents sent to the process."""
    spec = bounded_spec(
        run,
        key=record.id,
        attempt=record.attempt,
        argv=argv,
        environment=environment,
        working_directory=working_directory,
        output=output,
    )
    return replace(spec, runtime_max_s=run.runtime_max_s, intents=True)


def bounded_spec(
    run: RunSettings,
    *,
    key: str,
    attempt: int,
    argv: tuple[str, ...],
    environment: Mapping[str, str],
    working_directory: str,
    output: str,
) -> LaunchSpec:
    """Make a launch spec with the limits of `run` except runtime_max."""
    return LaunchSpec(
        key=key,
        attempt=attempt,
        argv=argv,
        environment=environment,
        working_directory=working_directory,
        output=output,
        user=run.user,
        group=run.group,
        umask=run.umask,
        nice=run.nice,
        rlimits=run.rlimits,
        memory_max_bytes=run.memory_max_bytes,
        cpu_quota_percent=run.cpu_quota_percent,
        tasks_max=run.tasks_max,
        output_max_bytes=run.output_max_bytes,
        stop_signal=run.stop_signal,
        stop_timeout_s=run.stop_timeout_s,
    )


def hooks_spec(flow: LaunchSpec, record: RunRecord, *, program: str, timeout_s: float) -> LaunchSpec:
    """Make the launch spec that runs the hooks of an ended run: that of its flow, with `program` instead of the engine.

    Where the flow had a scratch directory, the hooks get another one, because the flow's still exists.
    """
    work = {"hook": record.hook, "of_child": record.hook_of_child}
    directory = f"{flow.working_directory}{HOOKS_SUFFIX}" if flow.make_directory else flow.working_directory
    return replace(
        flow,
        key=hooks_key(record.id),
        working_directory=directory,
        argv=program_argv(flow.argv[0], "runnerd-hooks"),
        environment={**flow.environment, PROGRAM: program, "RUNNERD_HOOKS": json.dumps(work)},
        runtime_max_s=timeout_s,
        stop_signal=signal.SIGTERM,
        stop_timeout_s=5.0,
        intents=False,
    )


PROGRAM = "RUNNERD_PROGRAM"  # the environment variable with the program's text


def program_text(name: str) -> str:
    """Read the text of runnerd/programs/`name`.py, for another interpreter."""
    return importlib.resources.files("runnerd.programs").joinpath(f"{name}.py").read_text(encoding="utf-8")


def program_argv(python: str, name: str) -> tuple[str, ...]:
    """Make the command that runs the program in PROGRAM; on a command line its text would fill every process list."""
    return (python, "-c", f"import os; exec(os.environ.pop('{PROGRAM}'))", name)


HOOKS_PREFIX = "hooks-"


def hooks_key(run_id: str) -> str:
    """Return the spawner's key of the process that runs this run's hooks."""
    return f"{HOOKS_PREFIX}{run_id}"
