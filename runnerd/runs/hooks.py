"""Runs the hooks of an ended run through the spawner, in the flow's own interpreter and as its user.

Invariants: the API has accepted the report, so a hook sees the run's last state; a hook is started at most once, also
when this daemon dies: the spawner starts each (key, attempt) once, and hooks that were started in an earlier boot are
not started again; the run is done after its hooks, however they end. What does not answer while their start is
prepared, such as the disk of environment_file, is waited for as before a run's own start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from runnerd.core.errors import SpawnerError
from runnerd.core.machine import RunRecord
from runnerd.core.process import LaunchSpec
from runnerd.core.units import format_duration
from runnerd.files.bounded_calls import Unanswered
from runnerd.launch.prepared import HookLauncher
from runnerd.processes.link import SpawnerLink, describe_end
from runnerd.runs.preparing import RETRY_S, UNANSWERED_MAX_S


@dataclass(frozen=True, slots=True)
class HooksEnd:
    """How the hooks of a run ended, in words; `started`: they have run, though perhaps not to their end."""

    how: str
    started: bool = True


async def run_hooks(
    record: RunRecord, *, link: SpawnerLink, launcher: HookLauncher, boot_id: str, record_start: Callable[[], None]
) -> HooksEnd:
    """Run `record.hook`, wait for its end, at most run.hook_timeout, and return how it ended.

    `record_start` is called before the process is started, so that no later boot starts the hook again.
    """
    if record.hook_boot not in (None, boot_id):
        return HooksEnd("the host restarted meanwhile; they are not run again")
    spec = await prepare_afterwork(record, launcher)
    if not isinstance(spec, LaunchSpec):
        return HooksEnd(f"could not start: {spec}", started=record.hook_boot is not None)
    if record.hook_boot is None:
        record_start()
    try:
        seen = await link.run_to_end(spec)
    except SpawnerError as error:
        return HooksEnd(f"could not start: {error}", started=False)
    how = describe_end(seen, memory_max_bytes=spec.memory_max_bytes)
    if seen is not None and seen.stop_reason == "timeout":
        how = f"took longer than hook_timeout {format_duration(spec.runtime_max_s)}; {how}"
    return HooksEnd(how)


async def prepare_afterwork(record: RunRecord, launcher: HookLauncher) -> LaunchSpec | str | Unanswered:
    """Have the launch spec made, again while something does not answer, for at most UNANSWERED_MAX_S."""
    loop = asyncio.get_running_loop()
    until = loop.time() + UNANSWERED_MAX_S
    while True:
        spec = await launcher.prepare_hooks(record)
        if not isinstance(spec, Unanswered) or loop.time() >= until:
            return spec
        await asyncio.sleep(RETRY_S)
