"""Makes the launch spec of a run whose process is a command: no Prefect, no interpreter, no access to the API. Pure.

Invariants: parameters come from the API, so each is one argument, one variable PARAM_<NAME> or a part of the JSON on
standard input, and no other variable is made of them; PREFECT_API_URL and its credentials are passed to no command.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from runnerd.core.command_text import (
    check_total,
    effective_parameters,
    fill_arguments,
    make_variables,
    write_stdin,
)
from runnerd.core.commands import STDIN_SUFFIX, Command
from runnerd.core.machine import RunRecord
from runnerd.core.place import Json, printable
from runnerd.core.process import LaunchSpec
from runnerd.core.settings import Deployment
from runnerd.launch.spec import run_spec


def command_spec(
    record: RunRecord,
    deployment: Deployment,
    command: Command,
    *,
    parameters: Mapping[str, Json],
    environment: Mapping[str, str],
    output: str,
) -> tuple[LaunchSpec, bytes | None]:
    """Make the launch spec of this attempt, and the content of its standard input, which the caller writes to `stdin`.

    `environment` is that of the user and of the settings. Raises Unfit for parameters that cannot be passed on.
    """
    values = effective_parameters(command.parameter_schema or {}, parameters)
    on_stdin = command.stdin == "parameters"
    argv = fill_arguments(command, values)
    own = {
        **environment,
        **make_variables(values, on_stdin=on_stdin),
        "RUNNERD_RUN_ID": record.id,
        "RUNNERD_RUN_NAME": printable(record.name),
        "RUNNERD_DEPLOYMENT": deployment.name,
        "RUNNERD_ATTEMPT": str(record.attempt),
    }
    check_total(argv, own)
    directory = deployment.run.working_directory
    spec = run_spec(record, deployment.run, argv=argv, environment=own, working_directory=directory, output=output)
    stdin = write_stdin(values) if on_stdin else None
    # It does not read Prefect's control channel: a stop would wait a second for its answer.
    return replace(spec, intents=False, stdin=f"{output}{STDIN_SUFFIX}" if on_stdin else None), stdin
