"""What the daemon does on the side: adopting at start, the watchdog, the status line, the journal's health,
and forgetting old runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta

from runnerd import __version__
from runnerd.alerts import Alert
from runnerd.errand import KEY_PREFIX
from runnerd.errors import JournalError
from runnerd.journal import Journal
from runnerd.launch import HOOKS_PREFIX, TIDY_PREFIX
from runnerd.link import SpawnerLink
from runnerd.logs import Log
from runnerd.machine import Phase, RunRecord
from runnerd.model import JournalSettings
from runnerd.pulse import Pulse
from runnerd.spawner.protocol import Record
from runnerd.supervisor import Supervisor
from runnerd.systemd import Systemd

_STATUS_S = 5.0
_MEMORIES_KEPT = timedelta(days=90)
_TRIAL_S = 5.0
_RENEW_S = 10.0
_PRUNE_S = 3600.0
_PRUNE_SLICE = 100  # some 20 ms without a turn for anybody else


async def adopt(*, journal: Journal, link: SpawnerLink, supervisor: Supervisor, log: Log) -> None:
    """Take over what the last daemon left: its runs by the journal, and what only the spawner knows of."""
    unfinished = journal.unfinished()
    supervisor.adopt(unfinished)
    ours = {record.id for record in unfinished}
    for seen in link.records():
        if seen.key in ours:
            continue
        if seen.key.startswith(KEY_PREFIX):
            await _clear(seen, link)
        elif seen.key.startswith((HOOKS_PREFIX, TIDY_PREFIX)):
            await _leave_afterwork(seen, ours, link)
        elif _is_flow_run(seen.key):
            await _adopt_stranger(seen, journal, link, supervisor)
    supervisor.adopted.set()
    if unfinished:
        log.info("adopted all", runs=len(unfinished))


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


async def keep_watchdog(*, systemd: Systemd, pulse: Pulse, log: Log) -> None:
    """Feed the watchdog while every loop makes progress; the API's health has no say in it."""
    interval_s = systemd.watchdog_s()
    if interval_s is None:
        return
    while True:
        stuck = pulse.stuck()
        if stuck:
            log.error("not feeding the watchdog", stuck=", ".join(stuck), alert=Alert.WATCHDOG_STARVED)
        else:
            systemd.feed_watchdog()
        await asyncio.sleep(interval_s / 2)


async def keep_status(*, systemd: Systemd, text: Callable[[], str], changed: asyncio.Event) -> None:
    """Keep the line that `systemctl status` shows true: at once when `changed` is set, and now and then."""
    while systemd.present:
        changed.clear()
        systemd.status(text())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STATUS_S):
                await changed.wait()


async def keep_spawner_new(*, link: SpawnerLink, log: Log) -> None:
    """After an upgrade of ours, have the spawner of the version before make room once no run needs it."""
    in_vain = __version__  # what comes back in the same version is what is installed there
    while True:
        await link.wait_up()
        hello = link.hello
        idle = not any(record.phase != "exited" for record in link.records())
        if hello is not None and hello.version not in (__version__, in_vain) and idle and await link.retire():
            in_vain = hello.version
            log.info("the spawner of another version makes room", its=hello.version, ours=__version__)
        await asyncio.sleep(_RENEW_S)


async def keep_journal(*, journal: Journal, healed: Callable[[], None]) -> None:
    """While nothing can be recorded, try again, so that it heals by itself also where nothing is on offer."""
    while True:
        await asyncio.sleep(_TRIAL_S)
        if journal.problem is None:
            continue
        with contextlib.suppress(JournalError):
            journal.try_again()
            healed()


async def keep_pruning(
    *, journal: Journal, settings: Callable[[], JournalSettings], now: Callable[[], datetime], log: Log
) -> None:
    """Keep the history within its bounds."""
    while True:
        await prune(journal=journal, settings=settings(), now=now(), log=log)
        await asyncio.sleep(_PRUNE_S)


async def prune(*, journal: Journal, settings: JournalSettings, now: datetime, log: Log) -> None:
    """Forget finished runs beyond journal.keep and journal.max_runs, and remove their output."""
    before = now - timedelta(seconds=settings.keep_s)
    stuck: dict[str, str] = {}
    try:
        while old := journal.prunable(before=before, max_runs=settings.max_runs, limit=_PRUNE_SLICE + len(stuck)):
            # Output first: a row without output is harmless, output without a row would stay for ever.
            stuck |= {record.id: why for record in old if (why := _remove_output(record)) is not None}
            gone = [record.id for record in old if record.id not in stuck]
            if not gone:
                break
            journal.forget(gone)
            await asyncio.sleep(0)  # a turn for everybody else: there may be ten thousand
    except JournalError as error:
        log.warning("cannot forget old runs", why=str(error))
    if stuck:
        log.warning("cannot remove the output of old runs", runs=len(stuck), why=next(iter(stuck.values())))
    journal.prune_memories(before=now - _MEMORIES_KEPT)


def _remove_output(record: RunRecord) -> str | None:
    """Remove the output of every attempt; why it cannot be done."""
    if record.output is None:
        return None
    stem = record.output.removesuffix(f".{record.attempt}.log")
    for attempt in range(1, record.attempt + 1):
        try:
            os.unlink(f"{stem}.{attempt}.log")
        except FileNotFoundError:
            continue
        except OSError as error:
            return f"{stem}.{attempt}.log: {error.strerror}"
    return None
