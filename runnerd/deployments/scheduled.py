"""Lists the next scheduled runs of this host's own deployments, so that warm interpreters can be started ahead."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from runnerd.core.machine import RunRecord
from runnerd.deployments.registry import Entry, EntryState, Registry
from runnerd.launch.prepared import Launcher, Prepared, Upcoming


def list_upcoming(registry: Registry, launcher: Launcher) -> Iterator[Upcoming]:
    """Yield the next scheduled run of each deployment that is not paused and may start warm."""
    for entry in registry.entries():
        at, deployment_id = entry.next_run_at, entry.deployment_id
        if entry.state is not EntryState.READY or at is None or deployment_id is None:
            continue
        if entry.deployment.command is not None:
            continue
        if entry.deployment.work_pool is None and entry.deployment.run.start != "cold":
            prepare = partial(_prepare, launcher, entry, deployment_id)
            yield Upcoming(deployment=deployment_id, at=at, prepare=prepare)


async def _prepare(launcher: Launcher, entry: Entry, deployment_id: str) -> Prepared:
    """Make a launch spec as that of the next run, which nothing is started from."""
    assert entry.next_run_at is not None
    record = RunRecord(
        id="",
        name="",
        deployment_id=deployment_id,
        deployment=entry.deployment.name,
        flow=entry.flow or "",
        transition_id="",
        created_at=entry.next_run_at,
    )
    return await launcher.prepare(record)
