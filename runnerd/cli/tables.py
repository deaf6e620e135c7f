"""Runs, deployments and problems as tables, for every verb that shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runnerd.cli.console import Cell, Column, Console
from runnerd.cli.text import api_state, clean, duration, phase, short_ids, size, took

Json = Any
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


def styled(word: str) -> Cell:
    """A state in the colour of its first word."""
    return Cell(word, _STATE_STYLES.get(word.split(" ")[0].lower()))


def runs_table(console: Console, runs: Sequence[Json]) -> None:
    """The runs here now."""
    ids = _ids(console, runs)
    rows = [
        (
            ids[run["id"]],
            clean(run["name"]),
            clean(run["deployment"] or "-"),
            styled(phase(run)),
            str(run["pid"] or "-"),
            console.when(run["started_at"]),
            "-" if run["memory_bytes"] is None else size(run["memory_bytes"]),
            "-" if run["cpu_seconds"] is None else duration(run["cpu_seconds"]),
        )
        for run in runs
    ]
    console.table(_RUNS, rows)


def history_table(console: Console, runs: Sequence[Json]) -> None:
    """Runs that may be over, and how they came out."""
    ids = _ids(console, runs)
    rows = []
    for run in runs:
        seconds = took(run, console.now)
        row = (
            ids[run["id"]],
            clean(run["name"]),
            clean(run["deployment"] or "-"),
            styled(phase(run)),
            styled(api_state(run) or "-"),
            console.when(run["started_at"]),
            "-" if seconds is None else duration(seconds),
            clean((run["exit"] or {}).get("words") or "-"),
        )
        rows.append(row)
    console.table(_HISTORY, rows)


def deployments_table(console: Console, deployments: Sequence[Json]) -> None:
    rows = [
        (
            clean(its["name"]),
            clean(its["flow"] or "-"),
            styled(its["state"]),
            f"{its['running']}/{its['limit']}" if its["limit"] is not None else str(its["running"]),
            console.when(its["next_run_at"]),
            clean(its["problem"] or "-"),
        )
        for its in deployments
    ]
    console.table(_DEPLOYMENTS, rows)


def pools_table(console: Console, pools: Sequence[Json]) -> None:
    """The work pools this host serves."""
    rows = [
        (
            clean(its["name"]),
            clean(its["type"] or "-"),
            styled(_pool_state(its)),
            f"{its['running']}/{its['limit']}" if its["limit"] is not None else str(its["running"]),
            clean(
                ", ".join(queue["name"] + (" (paused)" if queue["paused"] else "") for queue in its["queues"]) or "-"
            ),
            clean(its["problem"] or "-"),
        )
        for its in pools
    ]
    console.table(_POOLS, rows)


def _pool_state(its: Json) -> str:
    """With how Prefect's own worker for it stands, where one is kept."""
    return f"{its['state']} ({its['worker']['state']})" if its["worker"] else str(its["state"])


def problem_words(problem: Json) -> str:
    """As a compiler says it: file:line:column: what."""
    place = ":".join(str(problem[key]) for key in ("file", "line", "column") if problem.get(key) is not None)
    return clean(f"{place}: {problem['message']}" if place else problem["message"])


def _ids(console: Console, runs: Sequence[Json]) -> dict[str, str]:
    """Short on a terminal; whole for a program."""
    ids = [run["id"] for run in runs]
    return {i: i for i in ids} if console.width is None else short_ids(ids)
