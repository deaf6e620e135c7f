"""Adopts, at start, the runs of the last daemon: those in the journal, and those that only the spawner has."""

from __future__ import annotations

import uuid

from runnerd.core.machine import Phase
from runnerd.journal.journal import Journal
from runnerd.launch.run_commands import AFTER_PREFIX, BEFORE_PREFIX
from runnerd.launch.scratch import TIDY_PREFIX
from runnerd.launch.spec import HOOKS_PREFIX
from runnerd.log.log import Log
from runnerd.processes.helper import HELPER_KEY_PREFIX
from runnerd.processes.link import SpawnerLink
from runnerd.processes.protocol import Record
from runnerd.runs.supervisor import Supervisor
from runnerd.system.containment import Containment

_ID_LENGTH = 36


async def adopt(*, journal: Journal, link: SpawnerLink, supervisor: Supervisor, log: Log) -> None:
    """Adopt all runs that the last daemon left, and clear its helpers, hooks and tidying from the spawner."""
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
        log.info("adopted all runs", runs=len(unfinished))


async def _adopt_seen(
    seen: Record, ours: set[str], *, journal: Journal, link: SpawnerLink, supervisor: Supervisor
) -> None:
    """Take over what the spawner knows of and the journal has no unfinished run of."""
    if seen.key.startswith(HELPER_KEY_PREFIX):
        await _end_helper(seen, link)
    elif seen.key.startswith((HOOKS_PREFIX, TIDY_PREFIX, BEFORE_PREFIX, AFTER_PREFIX)):
        await _forget_afterwork(seen, ours, link)
    elif _is_flow_run(seen.key):
        await _adopt_unknown(seen, journal, link, supervisor)


async def _end_helper(seen: Record, link: SpawnerLink) -> None:
    """Stop or forget an inspection of the last daemon, for which no code waits any more."""
    if seen.phase == "exited":
        await link.forget(seen.key, seen.attempt)
    else:
        await link.stop(seen.key, seen.attempt, reason="evict", timeout_s=0.0)


async def _forget_afterwork(seen: Record, ours: set[str], link: SpawnerLink) -> None:
    """Forget ended hooks, commands and tidying of runs that are done; those of adopted runs are left to these runs.

    Those still running may end, and are forgotten at a later start.
    """
    run_id = seen.key.partition("-")[2][:_ID_LENGTH]
    if run_id not in ours and seen.phase == "exited":
        await link.forget(seen.key, seen.attempt)


async def _adopt_unknown(seen: Record, journal: Journal, link: SpawnerLink, supervisor: Supervisor) -> None:
    """Adopt a run of the spawner that the journal lacks, and finish the clearing up of one that is done there."""
    known = journal.run(seen.key)
    if known is not None and known.phase is Phase.DONE and known.attempt >= seen.attempt:
        if known.scratch is not None and known.attempt == seen.attempt:
            return supervisor.adopt([known])  # only its scratch directory and the spawner's record have to go
        await link.forget(seen.key, seen.attempt)  # reported, but the last daemon died before this request
    else:
        supervisor.adopt_unknown(seen)


def _is_flow_run(key: str) -> bool:
    try:
        return str(uuid.UUID(key)) == key
    except ValueError:
        return False
