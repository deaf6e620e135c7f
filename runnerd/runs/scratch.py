"""Removes the scratch directory of an ended run through the spawner, as the run's user.

Invariants: no process of the run is left; removing twice changes nothing, so the next daemon requests it again, and
gets the result of the first request where the spawner still has it; the run is done afterwards, also on failure.
"""

from __future__ import annotations

from runnerd.core.errors import SpawnerError
from runnerd.core.machine import RunRecord
from runnerd.core.process import LaunchSpec
from runnerd.core.units import format_duration
from runnerd.processes.link import SpawnerLink, describe_end
from runnerd.processes.protocol import Record


async def remove_scratch(record: RunRecord, *, link: SpawnerLink, spec: LaunchSpec) -> str | None:
    """Remove the directory by launch.tidy_spec; None when it is removed, else why it may not be, in words."""
    try:
        seen = await link.run_to_end(spec)
    except SpawnerError as error:
        return _explain(spec, str(error))
    if seen is None:
        return _explain(spec, describe_end(seen))
    await link.forget(spec.key, spec.attempt)
    if seen.exit is not None and seen.exit.code == 0:
        return None
    return _explain(spec, f"{_describe_exit(seen, spec)}; see `runnerctl logs {record.id}`")


def _describe_exit(seen: Record, spec: LaunchSpec) -> str:
    if seen.stop_reason == "timeout":
        return f"it took longer than {format_duration(spec.runtime_max_s)}"
    return describe_end(seen)


def _explain(spec: LaunchSpec, cause: str) -> str:
    return f"cannot remove {spec.argv[-1]}: {cause}"
