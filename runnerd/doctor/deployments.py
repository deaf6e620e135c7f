"""Checks the daemon's own state: its loops, journal, configuration, deployments, work pools, and runs left behind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from runnerd.core.errors import ApiError
from runnerd.core.names import some
from runnerd.core.place import Problem
from runnerd.core.settings import Config
from runnerd.deployments.registry import Entry, EntryState
from runnerd.doctor.checks import Check, error, ok, unknown, warning
from runnerd.doctor.subject import Subject
from runnerd.pools.table import Served
from runnerd.runs.abandoned import Abandoned
from runnerd.runs.blocked import Blocked


async def run_loop_checks(subject: Subject) -> Sequence[Check]:
    stuck = subject.pulse.stuck()
    if not stuck:
        return [ok("loops", "every loop of runnerd makes progress")]
    remedy = "systemctl restart runnerd; runs continue through a restart; journalctl -u runnerd shows why"
    return [error("loops", f"loops without progress: {', '.join(stuck)}", remedy)]


async def run_journal_checks(subject: Subject) -> Sequence[Check]:
    journal = subject.journal
    if journal.problem is not None:
        remedy = f"fix the cause in {subject.paths.state}; runnerd tries again every few seconds"
        return [error("journal", journal.problem, remedy)]
    if journal.notice is not None:
        remedy = "move or remove the old file, which only holds history; a restart of runnerd clears this warning"
        return [warning("journal", journal.notice, remedy)]
    return [ok("journal", "the journal can be written")]


async def run_deployment_checks(subject: Subject) -> Sequence[Check]:
    config = subject.config.current
    return [
        check_configuration(subject.config.problems(), len(config.files)),
        check_deployments(subject.registry.entries(), config, subject.held_drops()),
        check_pools(subject.pools.entries(), subject.pools.problems()),
        check_warm(subject.warm()),
        check_notices(subject.notices()),
    ]


async def run_run_checks(subject: Subject) -> Sequence[Check]:
    deadlocked = subject.deadlocked()
    try:
        await subject.abandoned.look_up()
    except ApiError as why:
        if not deadlocked:
            return [unknown("runs", f"cannot check for runs without a process: {why}", "see the api check")]
    return [check_runs(deadlocked, subject.abandoned.known())]


def check_runs(deadlocked: Sequence[Blocked], abandoned: Sequence[Abandoned]) -> Check:
    """Warn of runs that their own parents keep waiting, and of runs whose process has ended."""
    found: Sequence[Blocked | Abandoned] = [*deadlocked, *abandoned]
    if not found:
        return ok("runs", "no run waits for a process that has ended, or for a slot that its parent holds")
    return warning("runs", _first_of(found), found[0].remedy)


def _first_of(found: Sequence[object]) -> str:
    more = f"; and {len(found) - 1} more, which runnerctl status lists" if len(found) > 1 else ""
    return f"{found[0]}{more}"


def check_configuration(problems: Sequence[Problem], files: int) -> Check:
    if not problems:
        return ok("configuration", f"{files} {'file' if files == 1 else 'files'} in force, no problems")
    more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
    remedy = "fix the problems listed by: runnerctl config check; then runnerctl reload"
    return error("configuration", f"{problems[0]}{more}", remedy)


def check_warm(problems: Sequence[Problem]) -> Check:
    """Warn of warm interpreters that cannot be started: their runs start, but cold."""
    if not problems:
        return ok("warm interpreters", "none has failed")
    remedy = "fix the cause, or set run.start to cold; runnerd tries again within the hour"
    return warning("warm interpreters", _first_of(problems), remedy)


def check_notices(problems: Sequence[Problem]) -> Check:
    """Warn of notices that cannot be sent."""
    if not problems:
        return ok("notices", "none waits after a failure")
    remedy = "correct the command or the URL in notices:, then runnerctl reload; what waits is repeated for a day"
    return warning("notices", _first_of(problems), remedy)


def check_deployments(entries: Iterable[Entry], config: Config, held_drops: Sequence[Problem] = ()) -> Check:
    """Report invalid, unregistrable and outdated deployments as an error; else others with flaws, or that wait.

    `held_drops`: why deployments that left the files cannot be dropped yet; an error too.
    """
    entries = list(entries)
    dead = [one.name or "a deployment without a name" for one in config.invalid]
    stale = [one.full_name for one in entries if one.invalid]
    failed = [one for one in entries if one.problem is not None and not one.invalid]
    waiting = [one for one in entries if one.state is EntryState.UNREGISTERED and one.problem is None]
    said = []
    if dead:
        said.append(f"cannot run {some(dead)}: the configuration is invalid")
    if failed:
        whose = f"{failed[0].full_name}: " if len(failed) > 1 else ""
        said.append(f"cannot register {some([one.full_name for one in failed])}: {whose}{failed[0].problem}")
    if stale:
        said.append(f"cannot apply the configuration of {some(stale)}: it is invalid; the last valid one is in force")
    if held_drops:
        said.append(_first_of(held_drops))
    if said:
        remedy = "fix the cause, which runnerctl status shows for each; then runnerctl reload"
        return error("deployments", "; ".join(said), remedy)
    flaws = [flaw for one in entries for flaw in one.flaws]
    if flaws:
        return warning("deployments", _first_of(flaws), "correct the file; then runnerctl reload")
    if waiting:
        detail = f"not registered in Prefect yet: {some([one.full_name for one in waiting])}"
        return warning("deployments", detail, "wait if they were just added; else see the api check")
    paused = sum(one.state is EntryState.PAUSED for one in entries)
    return ok("deployments", f"{len(entries)} registered" + (f", {paused} of them paused" if paused else ""))


def check_pools(pools: Sequence[Served], problems: Sequence[tuple[Served, str]]) -> Check:
    """Report work pools that cannot be served as an error, those not read from Prefect yet as a warning."""
    if problems:
        details = "; ".join(f"cannot serve {served.name}: {words}" for served, words in problems)
        return error("work pools", details, "fix the cause; runnerd tries again by itself")
    waiting = [served.name for served in pools if served.pool is None]
    if waiting:
        remedy = "wait if they were just added; else see the api check"
        return warning("work pools", f"not read from Prefect yet: {some(waiting)}", remedy)
    return ok("work pools", f"serving {some([served.name for served in pools])}" if pools else "none configured")
