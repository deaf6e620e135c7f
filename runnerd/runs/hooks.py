"""Runs the hooks of an ended run through the spawner, in the flow's own interpreter and as its user.

Invariants: the API has accepted the report, so a hook sees the run's last state; a hook is started at most once, also
when this daemon dies: the spawner starts each (key, attempt) once, and hooks that were started in an earlier boot are
not started again; the run is done after its hooks, however they end.
"""

from __future__ import annotations

from collections.abc import Callable

from runnerd.core.errors import SpawnerError
from runnerd.core.machine import RunRecord
from runnerd.core.process import LaunchSpec
from runnerd.core.units import format_duration
from runnerd.launch.prepared import HookLauncher
from runnerd.processes.link import SpawnerLink, describe_end


async def run_hooks(
    record: RunRecord, *, link: SpawnerLink, launcher: HookLauncher, boot_id: str, record_start: Callable[[], None]
) -> str:
    """Run `record.hook`, wait for its end, at most run.hook_timeout, and return how it ended, in words.

    `record_start` is called before the process is started, so that no later boot starts the hook again.
    """
    if record.hook_boot not in (None, boot_id):
        return "the host restarted meanwhile; they are not run again"
    spec = await launcher.prepare_hooks(record)
    if not isinstance(spec, LaunchSpec):
        return f"could not start: {spec}"
    if record.hook_boot is None:
        record_start()
    try:
        seen = await link.run_to_end(spec)
    except SpawnerError as error:
        return f"could not start: {error}"
    how = describe_end(seen, memory_max_bytes=spec.memory_max_bytes)
    if seen is not None and seen.stop_reason == "timeout":
        return f"took longer than hook_timeout {format_duration(spec.runtime_max_s)}; {how}"
    return how
