"""Removes the scratch directory of an ended run through the spawner, as the run's user.

Invariants: no process of the run is left; removing twice changes nothing, so a daemon that takes over asks again,
and hears how the first time went where that is still known; however it ends, the run is done.
"""

from __future__ import annotations

from runnerd.core.errors import SpawnerError
from runnerd.core.machine import RunRecord
from runnerd.core.process import LaunchSpec
from runnerd.core.units import format_duration
from runnerd.processes.link import SpawnerLink, describe_end
from runnerd.processes.protocol import Record


async def tidy(record: RunRecord, *, link: SpawnerLink, spec: LaunchSpec) -> str | None:
    """Do as launch.tidy_spec says; None when it is gone, else why it may not be, in words."""
    try:
        seen = await link.run_to_end(spec)
    except SpawnerError as error:
        return _words(spec, str(error))
    if seen is None:
        return _words(spec, describe_end(seen))
    await link.forget(spec.key, spec.attempt)
    if seen.exit is not None and seen.exit.code == 0:
        return None
    return _words(spec, f"{_how(seen, spec)}; see `runnerctl logs {record.id}`")


def _how(seen: Record, spec: LaunchSpec) -> str:
    if seen.stop_reason == "timeout":
        return f"it took longer than {format_duration(spec.runtime_max_s)}"
    return describe_end(seen)


def _words(spec: LaunchSpec, cause: str) -> str:
    return f"cannot remove {spec.argv[-1]}: {cause}"
