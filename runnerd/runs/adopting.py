"""Adopting at start what the last daemon left: runs by the journal, and what only the spawner knows."""

from __future__ import annotations

import uuid

from runnerd.core.machine import Phase
from runnerd.journal.journal import Journal
from runnerd.launch.scratch import TIDY_PREFIX
from runnerd.launch.spec import HOOKS_PREFIX
from runnerd.log.log import Log
from runnerd.processes.helper import HELPER_KEY_PREFIX
from runnerd.processes.link import SpawnerLink
from runnerd.processes.protocol import Record
from runnerd.runs.supervisor import Supervisor
from runnerd.system.containment import Containment


async def adopt(*, journal: Journal, link: SpawnerLink, supervisor: Supervisor, log: Log) -> None:
    """Take over what the last daemon left: its runs by the journal, and what only the spawner knows of."""
    unfinished = journal.unfinished()
    supervisor.adopt(unfinished)
    ours = {record.id for record in unfinished}
    contained = Containment(log=log, loop="adoption")
    for seen in link.records():
        if seen.key not in ours:
            with contained.item(seen.key):
                await _adopt_seen(seen, ours, journal=journal, link=link, supervisor=supervisor)
    supervisor.adopted.set()
    if unfinished:
        log.info("adopted all", runs=len(unfinished))


async def _adopt_seen(
    seen: Record, ours: set[str], *, journal: Journal, link: SpawnerLink, supervisor: Supervisor
) -> None:
    """Deal with what the spawner knows and no unfinished run of the journal is."""
    if seen.key.startswith(HELPER_KEY_PREFIX):
        await _clear(seen, link)
    elif seen.key.startswith((HOOKS_PREFIX, TIDY_PREFIX)):
        await _leave_afterwork(seen, ours, link)
    elif _is_flow_run(seen.key):
        await _adopt_stranger(seen, journal, link, supervisor)


async def _clear(seen: Record, link: SpawnerLink) -> None:
    """An inspection whose daemon died: nobody waits for it."""
    if seen.phase == "exited":
        await link.forget(seen.key, seen.attempt)
    else:
        await link.stop(seen.key, seen.attempt, reason="evict", timeout_s=0.0)


async def _leave_afterwork(seen: Record, ours: set[str], link: SpawnerLink) -> None:
    """What follows a run of ours is its business; others may end what they do, and are forgotten at a later start."""
    run_id = seen.key.removeprefix(HOOKS_PREFIX).removeprefix(TIDY_PREFIX)
    if run_id not in ours and seen.phase == "exited":
        await link.forget(seen.key, seen.attempt)


async def _adopt_stranger(seen: Record, journal: Journal, link: SpawnerLink, supervisor: Supervisor) -> None:
    known = journal.run(seen.key)
    if known is not None and known.phase is Phase.DONE and known.attempt >= seen.attempt:
        if known.scratch is not None and known.attempt == seen.attempt:
            return supervisor.adopt([known])  # what is left to do is to remove its directory, then to forget it
        await link.forget(seen.key, seen.attempt)  # told, and the last daemon died before it could forget
    else:
        supervisor.adopt_unknown(seen)


def _is_flow_run(key: str) -> bool:
    try:
        return str(uuid.UUID(key)) == key
    except ValueError:
        return False
