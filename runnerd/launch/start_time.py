"""Has a process that is started ahead begin its flow when the run is due, and names the file with when it was ready.

The process is prefect.engine inside programs/run_engine.py, of own deployments and of pools alike, or a child of the
spawner that executes the command of a deployment then. Any other, which only a pool's job can name, waits as the
server says. Pure.
"""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import datetime

from runnerd.core.machine import RunRecord
from runnerd.core.process import LaunchSpec
from runnerd.launch.spec import PROGRAM, program_argv, program_text

START_AT = "RUNNERD_START_AT"
READY_MAX_BYTES = 64
READY_MAX_S = 86400.0  # the bound of prefetch
_ENGINE = ("-m", "prefect.engine")


def hold_until_due(spec: LaunchSpec, record: RunRecord, *, now: datetime) -> LaunchSpec:
    """Return the spec with which the flow of this run begins when the run is due; unchanged where that is now.

    The wait is added to `runtime_max`. Where the spawner is older than `execute_at_s`, a command is started when it is
    due, and nothing waits.
    """
    if record.due_at is None:
        return spec
    ahead_s = min((record.due_at - now).total_seconds(), READY_MAX_S)  # a clock that was set back may say years
    if spec.runtime_max_s is not None and ahead_s > 0:
        spec = replace(spec, runtime_max_s=spec.runtime_max_s + ahead_s)
    if record.command is not None:
        return replace(spec, execute_at_s=record.due_at.timestamp())
    program = program_text("run_engine")
    if not (spec.argv[1:] == _ENGINE or spec.environment.get(PROGRAM) == program):
        return spec
    environment = {**spec.environment, PROGRAM: program, START_AT: f"{record.due_at.timestamp():.6f}"}
    argv = program_argv(spec.argv[0], _ENGINE[-1])
    return replace(spec, argv=argv, environment=environment, result=ready_file(record, spec.output))


def begun_at(record: RunRecord, started_at: datetime, *, now: datetime) -> datetime:
    """Return when the run began of whose process the spawner says this: that of a command may have waited."""
    if record.command is None or record.due_at is None:
        return started_at
    return max(started_at, min(record.due_at, now))


def ready_file(record: RunRecord, output: str | None) -> str | None:
    """Return the path of the file in which the process writes when it was ready; None for a run without one."""
    return f"{output}.ready" if output is not None and record.due_at is not None else None


def ready_after_s(record: RunRecord, text: str) -> float | None:
    """Return the seconds from the run's claim until its process was ready, from what the process has written.

    None for what cannot be: the text is the flow user's, and the clock may have been set meanwhile. Of a run that was
    started a second time, the claim is too long ago.
    """
    try:
        seconds = datetime.fromtimestamp(float(text), record.created_at.tzinfo) - record.created_at
    except (ValueError, OverflowError, OSError):
        return None
    ready_s = seconds.total_seconds()
    return ready_s if math.isfinite(ready_s) and 0 < ready_s <= READY_MAX_S and not record.respawned else None
