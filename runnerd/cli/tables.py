"""Prints the tables of runs, deployments and pools for every verb that shows them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from runnerd.cli.console import Cell, Column, Console
from runnerd.cli.text import (
    clean,
    format_phase,
    format_running,
    format_state,
    seconds_taken,
    shorten_ids,
)
from runnerd.control.client import Json
from runnerd.core.units import format_duration, format_size

_STATE_STYLES = {
    "completed": "green",
    "running": "green",
    "ready": "green",
    "ok": "green",
    "failed": "red",
    "crashed": "red",
    "invalid": "red",
    "unreachable": "red",
    "degraded": "yellow",
    "paused": "yellow",
    "unregistered": "yellow",
    "unknown": "yellow",
    "cancelled": "yellow",
    "stopping": "yellow",
    "killing": "yellow",
    "reporting": "yellow",
}
_RUNS = (
    Column("RUN"),
    Column("NAME", flexible=True),
    Column("DEPLOYMENT", flexible=True),
    Column("PHASE"),
    Column("PID", right=True, spare=True),
    Column("STARTED"),
    Column("MEMORY", right=True, spare=True),
    Column("CPU", right=True, spare=True),
)
_HISTORY = (
    Column("RUN"),
    Column("NAME", flexible=True),
    Column("DEPLOYMENT", flexible=True),
    Column("PHASE", spare=True),
    Column("STATE"),
    Column("STARTED"),
    Column("TOOK", spare=True),
    Column("EXIT", flexible=True),
)
WAITING_SHOWN = 20
_WAITING = (
    Column("WAITING RUN"),
    Column("NAME", flexible=True),
    Column("DEPLOYMENT", flexible=True),
    Column("DUE"),
    Column("WAITS FOR"),
)
_DEPLOYMENTS = (
    Column("DEPLOYMENT", flexible=True),
    Column("FLOW", flexible=True, spare=True),
    Column("STATE"),
    Column("RUNNING", right=True),
    Column("NEXT RUN"),
    Column("PROBLEM", flexible=True),
)
_POOLS = (
    Column("POOL", flexible=True),
    Column("TYPE"),
    Column("STATE"),
    Column("RUNNING", right=True),
    Column("QUEUES", flexible=True),
    Column("PROBLEM", flexible=True),
)
_WARM = (
    Column("WARM INTERPRETER", flexible=True),
    Column("USER"),
    Column("PRELOADED", flexible=True, spare=True),
    Column("STATE"),
    Column("STARTED"),
    Column("MEMORY", right=True, spare=True),
    Column("RUNS", right=True),
)


def style_state(word: str) -> Cell:
    """Colour a state by its first word."""
    return Cell(word, _STATE_STYLES.get(word.split(" ")[0].lower()))


def print_runs(console: Console, runs: Sequence[Json], *, explained: Collection[str] = ()) -> None:
    """Print the runs on this host now, and what each waits for unless its id is in `explained`."""
    ids = _show_ids(console, runs)
    rows = [
        (
            ids[run["id"]],
            clean(run["name"]),
            clean(run["deployment"] or "-"),
            style_state(format_phase(run)),
            str(run["pid"]) if run["pid"] and not run["ended_at"] else "-",
            console.when(run["started_at"]),
            "-" if run["memory_bytes"] is None else format_size(run["memory_bytes"], rounded=True),
            "-" if run["cpu_seconds"] is None else format_duration(run["cpu_seconds"], units=2),
        )
        for run in runs
    ]
    console.print_table(_RUNS, rows)
    for run in runs:
        if run.get("waiting") and run["id"] not in explained:
            console.print_line(f"{ids[run['id']]} waits for: {clean(run['waiting'])}")


def print_history(console: Console, runs: Sequence[Json]) -> None:
    """Print runs that may have ended, with their state in Prefect and their exit."""
    ids = _show_ids(console, runs)
    rows = []
    for run in runs:
        seconds = seconds_taken(run, console.now)
        row = (
            ids[run["id"]],
            clean(run["name"]),
            clean(run["deployment"] or "-"),
            style_state(format_phase(run)),
            style_state(format_state(run)),
            console.when(run["started_at"]),
            "-" if seconds is None else format_duration(seconds, units=2),
            clean((run["exit"] or {}).get("words") or "-"),
        )
        rows.append(row)
    console.print_table(_HISTORY, rows)


def print_waiting(console: Console, runs: Sequence[Json], *, total: int) -> None:
    """Print the first runs that wait, and what for."""
    shown = runs[:WAITING_SHOWN]
    ids = _show_ids(console, shown)
    rows = [
        (
            ids[run["id"]],
            clean(run["name"]),
            clean(run["deployment"] or run["pool"] or "-"),
            console.when(run["due_at"]),
            clean(run["waiting"]),
        )
        for run in shown
    ]
    console.print_table(_WAITING, rows)
    if total > len(shown):
        console.print_line(f"and {total - len(shown)} more")


def print_deployments(console: Console, deployments: Sequence[Json], *, below: Collection[str] = ()) -> None:
    """Print deployments with their problems; of those in `below`, which the caller prints, only that they are there."""
    rows = [
        (
            clean(its["name"]),
            clean(its["flow"] or "-"),
            style_state(its["state"]),
            format_running(its),
            console.when_next(its["next_run_at"]),
            _format_its_problem(its, below),
        )
        for its in deployments
    ]
    console.print_table(_DEPLOYMENTS, rows)


def print_pools(console: Console, pools: Sequence[Json], *, below: Collection[str] = ()) -> None:
    """Print the work pools that this host serves; `below` as in print_deployments."""
    rows = [
        (
            clean(its["name"]),
            clean(its["type"] or "-"),
            _format_pool_state(its),
            format_running(its),
            clean(
                ", ".join(queue["name"] + (" (paused)" if queue["paused"] else "") for queue in its["queues"]) or "-"
            ),
            _format_its_problem(its, below),
        )
        for its in pools
    ]
    console.print_table(_POOLS, rows)


def print_warm(console: Console, interpreters: Sequence[Json]) -> None:
    """Print the warm interpreters; why one has failed is among the problems."""
    rows = [
        (
            clean(its["python"]),
            clean(its["user"] or "-"),
            clean(", ".join(its["preload"]) or "-"),
            style_state(its["state"]),
            console.when(its["since"]),
            "-" if its["memory_bytes"] is None else format_size(its["memory_bytes"], rounded=True),
            str(its["runs"]),
        )
        for its in interpreters
    ]
    console.print_table(_WARM, rows)


def _format_pool_state(its: Json) -> Cell:
    """Format a pool's state, with the state of the Prefect worker that serves it, if any, in the worse one's colour."""
    state, worker = style_state(str(its["state"])), its["worker"]
    if not worker:
        return state
    style = _STATE_STYLES.get(worker["state"], "yellow") if state.style == "green" else state.style
    return Cell(f"{state.text} (worker {worker['state']})", style)


def _format_its_problem(its: Json, below: Collection[str]) -> str:
    return "see below" if its["problem"] in below else clean(its["problem"] or "-")


def format_problem(problem: Json) -> str:
    """Format a problem as compilers do: file:line:column: message."""
    place = ":".join(str(problem[key]) for key in ("file", "line", "column") if problem.get(key) is not None)
    return clean(f"{place}: {problem['message']}" if place else problem["message"])


def _show_ids(console: Console, runs: Sequence[Json]) -> dict[str, str]:
    """Shorten ids for a terminal; leave them whole for a program."""
    ids = [run["id"] for run in runs]
    return {i: i for i in ids} if console.width is None else shorten_ids(ids)
