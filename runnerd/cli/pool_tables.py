"""Prints the tables of runnerctl pool and runnerctl queue."""

from __future__ import annotations

from collections.abc import Sequence

from runnerd.cli.call import Call
from runnerd.cli.console import Cell, Column, Console
from runnerd.cli.text import clean, shorten_ids
from runnerd.control.client import Json
from runnerd.core.names import some

MARK = " (**)"
_QUEUES = (
    Column("NAME"),
    Column("PRIORITY", right=True),
    Column("CONCURRENCY LIMIT", right=True),
    Column("STATUS"),
    Column("LAST POLLED", spare=True),
    Column("DESCRIPTION", flexible=True, spare=True),
)
_OFFERS = (
    Column("DUE"),
    Column("RUN"),
    Column("NAME", flexible=True),
    Column("DEPLOYMENT", flexible=True),
    Column("QUEUE", flexible=True),
    Column("STATE", spare=True),
)
_POOL = Column("POOL")
_WAITING = Column("WAITS FOR", flexible=True)
_NAMED = 5  # of a list of names in a remark; more would not help


def name_cell(its: Json) -> Cell:
    """Show the name of a pool or a queue, marked when the pool or queue is paused."""
    return Cell(clean(its["name"]) + MARK, "yellow") if its["paused"] else Cell(clean(its["name"]))


def print_caption(console: Console, marked: Sequence[object], words: str) -> None:
    """Explain the mark below a table that has marked rows."""
    if any(marked):
        console.print_line(console.paint(f"{MARK.strip()} denotes {words}", "dim"))


def format_limit(limit: int | None) -> str:
    return "none" if limit is None else str(limit)


def status_cell(its: Json) -> Cell:
    """Show the status of a pool, a queue or a worker; an agent's pool has none."""
    words = "paused" if its.get("paused") else clean(its["status"] or "-").lower().replace("_", " ")
    return Cell(words, {"ready": "green", "paused": "yellow", "online": "green"}.get(words))


def print_queues(console: Console, queues: Sequence[Json], *, pools: bool) -> None:
    """Print the queues; with `pools`, also the pool of each."""
    rows = [
        (
            *([name_cell(its), clean(its["pool"])] if pools else [name_cell(its)]),
            str(its["priority"]),
            format_limit(its["concurrency_limit"]),
            status_cell(its),
            console.when(its["last_polled_at"]),
            clean(its["description"] or "-"),
        )
        for its in queues
    ]
    console.print_table((_QUEUES[0], _POOL, *_QUEUES[1:]) if pools else _QUEUES, rows)
    print_caption(console, [its["paused"] for its in queues], "a paused queue")


def print_preview(call: Call, where: str, *, pools: bool) -> None:
    """Print the preview that the control API has at `where`; with `pools`, also the pool of each run."""
    found = call.client.get(where, {"hours": str(call.args.hours)})
    if call.console.json:
        call.console.print_document(found)
        return
    if found["runs"]:
        _print_offers(call.console, found["runs"], pools=pools)
    else:
        call.console.print_remark("no runs; use --hours to list runs due later")
    if not found["whole"]:
        call.console.print_remark("there may be more runs: the API lists at most 200 runs of a pool")
    for name in found["paused"]:
        call.console.print_remark(f"{name} is paused: it delivers no runs")
    if stopped := found.get("paused_deployments"):
        call.console.print_remark(f"paused deployments, whose schedules create no runs: {some(stopped, most=_NAMED)}")
    elif stopped is None and "paused_deployments" in found:  # an older daemon may have no such field
        call.console.print_remark("paused deployments are not listed: the API cannot list them")
    if unchecked := found.get("unchecked_limits"):
        call.console.print_remark(f"concurrency limit not checked: {some(unchecked, most=_NAMED)}")


def _print_offers(console: Console, runs: Sequence[Json], *, pools: bool) -> None:
    ids = {run["id"]: run["id"] for run in runs} if console.width is None else shorten_ids([run["id"] for run in runs])
    waiting = any(run.get("waiting") for run in runs)
    rows = [
        (
            Cell(console.when(run["due_at"]) + MARK, "red") if run["late"] else Cell(console.when(run["due_at"])),
            ids[run["id"]],
            clean(run["name"]),
            clean(run["deployment"] or run["deployment_id"] or "-"),
            *([clean(run["pool"] or "-")] if pools else []),
            clean(run["queue"] or "-"),
            clean(run["api_state_name"] or run["api_state"].capitalize()),
            *([clean(run.get("waiting") or "-")] if waiting else []),
        )
        for run in runs
    ]
    columns = (*_OFFERS[:4], _POOL, *_OFFERS[4:]) if pools else _OFFERS
    console.print_table((*columns, _WAITING) if waiting else columns, rows)
    print_caption(console, [run["late"] for run in runs], "a late run")
