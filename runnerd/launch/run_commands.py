"""Makes the launch specs of an administrator's commands about a run: before it, after it, and of notices. Pure.

Invariants: the arguments of a command reach no shell: the one that writes the run's JSON to the command's stdin has a
fixed script, and takes the command as its arguments; the JSON is in the environment of that shell only.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import replace

from runnerd.core.machine import RunRecord
from runnerd.core.place import Json
from runnerd.core.process import LaunchSpec
from runnerd.core.run_placeholders import document_text, fill
from runnerd.core.settings import RunSettings
from runnerd.launch.spec import PROGRAM, bounded_spec

BEFORE_PREFIX, AFTER_PREFIX, NOTICE_PREFIX = "before-", "after-", "notice-"
_DOCUMENT = "RUNNERD_DOCUMENT"
# exec: what has the name of a word of the shell is a program all the same. A command need not read its stdin: then
# printf ends by SIGPIPE, or where that is ignored with words for which no reader waits.
_SCRIPT = (
    f'_runnerd_document=${_DOCUMENT}; unset {_DOCUMENT}; printf "%s\\n" "$_runnerd_document" 2>/dev/null | exec "$@"'
)
_NOT_FOR_COMMANDS = (PROGRAM, "RUNNERD_HOOKS")
_STOP_TIMEOUT_S = 5.0
_NOTICE_OUTPUT_MAX_BYTES = 65536


def _command(command: tuple[str, ...], document: Mapping[str, Json]) -> tuple[str, ...]:
    arguments = (fill(argument, document) for argument in command[1:])
    return ("/bin/sh", "-c", _SCRIPT, "runnerd-command", command[0], *arguments)


def command_spec(
    flow: LaunchSpec,
    command: tuple[str, ...],
    document: Mapping[str, Json],
    *,
    key: str,
    timeout_s: float,
    working_directory: str | None = None,
) -> LaunchSpec:
    """Make the launch spec of a command before or after a run: that of the run's `flow`, with the command instead.

    `working_directory`: one that exists; None for that of the flow.
    """
    environment = {name: value for name, value in flow.environment.items() if name not in _NOT_FOR_COMMANDS}
    return replace(
        flow,
        key=key,
        argv=_command(command, document),
        environment={**environment, _DOCUMENT: document_text(document)},
        working_directory=working_directory or flow.working_directory,
        make_directory=flow.make_directory and working_directory is None,
        result=None,
        stdin=None,
        forks=False,
        fork_of=None,
        intents=False,
        runtime_max_s=timeout_s,
        stop_signal=signal.SIGTERM,
        stop_timeout_s=_STOP_TIMEOUT_S,
    )


def notice_spec(
    run: RunSettings,
    command: tuple[str, ...],
    document: Mapping[str, Json],
    *,
    key: str,
    attempt: int,
    environment: Mapping[str, str],
    output: str,
    timeout_s: float,
) -> LaunchSpec:
    """Make the launch spec of the command of a notice, with the limits of the run's settings."""
    spec = bounded_spec(
        replace(run, output_max_bytes=_NOTICE_OUTPUT_MAX_BYTES, stop_timeout_s=_STOP_TIMEOUT_S, stop_signal=15),
        key=key,
        attempt=attempt,
        argv=_command(command, document),
        environment={**environment, _DOCUMENT: document_text(document)},
        working_directory=run.working_directory,
        output=output,
    )
    return replace(spec, runtime_max_s=timeout_s)


def before_key(record: RunRecord, index: int) -> str:
    """Return the spawner's key of a command before this run."""
    return f"{BEFORE_PREFIX}{record.id}-{index}"


def after_key(record: RunRecord, index: int) -> str:
    """Return the spawner's key of a command after this run."""
    return f"{AFTER_PREFIX}{record.id}-{index}"


def notice_key(notice_id: str) -> str:
    """Return the spawner's key of the command of a notice."""
    return f"{NOTICE_PREFIX}{notice_id}"
