"""Looks at what the daemon knows of itself: its loops, its journal, its configuration, its deployments and pools."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from runnerd.core.place import Problem
from runnerd.core.settings import Config
from runnerd.deployments.registry import Entry, EntryState
from runnerd.doctor.checks import Check, error, ok, some, warning
from runnerd.doctor.subject import Subject
from runnerd.pools.table import Served


async def look_at_loops(subject: Subject) -> Sequence[Check]:
    stuck = subject.pulse.stuck()
    if not stuck:
        return [ok("loops", "every loop of runnerd makes progress")]
    detail = f"{', '.join(stuck)} of runnerd made no progress for too long"
    return [error("loops", detail, "systemctl restart runnerd: flows run on; and see journalctl -u runnerd for why")]


async def look_at_journal(subject: Subject) -> Sequence[Check]:
    journal = subject.journal
    if journal.problem is not None:
        remedy = f"mend what it names in {subject.paths.state}; it is tried again by itself every few seconds"
        return [error("journal", journal.problem, remedy)]
    if journal.notice is not None:
        remedy = "keep the old file if its history matters, and remove it later; a restart of runnerd clears this note"
        return [warning("journal", journal.notice, remedy)]
    return [ok("journal", "records")]


async def look_at_deployments(subject: Subject) -> Sequence[Check]:
    config = subject.config.current
    return [
        configuration_check(subject.config.problems(), len(config.files)),
        deployments_check(subject.registry.entries(), config),
        pools_check(subject.pools.entries(), subject.pools.problems()),
    ]


def configuration_check(problems: Sequence[Problem], files: int) -> Check:
    if not problems:
        return ok("configuration", f"{files} {'file' if files == 1 else 'files'} in force, without a problem")
    more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
    remedy = "mend the files until runnerctl config check is content, then runnerctl reload; runnerctl status shows all"
    return error("configuration", f"{problems[0]}{more}", remedy)


def deployments_check(entries: Iterable[Entry], config: Config) -> Check:
    """Those that cannot run as their files want; one that waits for the API only is a lesser matter."""
    entries = list(entries)
    dead = [one.name or "a deployment without a name" for one in config.invalid]
    stale = [one.full_name for one in entries if one.invalid]
    failed = [one for one in entries if one.problem is not None and not one.invalid]
    waiting = [one for one in entries if one.state is EntryState.UNREGISTERED and one.problem is None]
    said = []
    if dead:
        said.append(f"{some(dead)} cannot run: the file is wrong")
    if failed:
        whose = f"{failed[0].full_name}: " if len(failed) > 1 else ""
        said.append(f"{some([one.full_name for one in failed])} cannot be registered: {whose}{failed[0].problem}")
    if stale:
        said.append(f"{some(stale)} run as their files last were, because they are wrong now")
    if said:
        remedy = "runnerctl status shows why, for each: mend that, then runnerctl reload"
        return error("deployments", "; ".join(said), remedy)
    if waiting:
        detail = f"{some([one.full_name for one in waiting])} wait to be registered with the API"
        return warning("deployments", detail, "nothing if they were just added; else see the api check")
    paused = sum(one.state is EntryState.PAUSED for one in entries)
    return ok("deployments", f"{len(entries)} registered" + (f", {paused} of them paused" if paused else ""))


def pools_check(pools: Sequence[Served], problems: Sequence[tuple[Served, str]]) -> Check:
    """Whether each work pool is served as the files want it."""
    if problems:
        why = "; ".join(f"{served.name}: {words}" for served, words in problems)
        return error("work pools", f"cannot be served: {why}", "mend that; it is tried again by itself")
    waiting = [served.name for served in pools if served.pool is None]
    if waiting:
        return warning("work pools", f"{some(waiting)} not known yet", "nothing if just added; else see the api check")
    return ok("work pools", f"{some([served.name for served in pools])} served" if pools else "none to serve")
