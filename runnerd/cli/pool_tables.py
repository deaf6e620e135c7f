"""What runnerctl pool and runnerctl queue share: their tables, their values, and the question before a deletion."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runnerd.cli.call import DONE, Call, Usage
from runnerd.cli.console import Cell, Column, Console
from runnerd.cli.text import clean, short_ids
from runnerd.control.client import Json as Json
from runnerd.control.client import quote as quote
from runnerd.core.errors import RunnerdError

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


# --- tables ---------------------------------------------------------------------------------------------------


def name_cell(its: Json) -> Cell:
    """The name of a pool or a queue, marked when it is paused."""
    return Cell(clean(its["name"]) + MARK, "yellow") if its["paused"] else Cell(clean(its["name"]))


def caption(console: Console, marked: Sequence[object], words: str) -> None:
    """What the mark means, below a table that has it."""
    if any(marked):
        console.line(console.paint(f"{MARK.strip()} denotes {words}", "dim"))


def limit_words(limit: int | None) -> str:
    return "none" if limit is None else str(limit)


def status_cell(its: Json) -> Cell:
    """Of a pool, a queue or a worker; pools for agents have no status of their own."""
    words = "paused" if its.get("paused") else clean(its["status"] or "-").lower().replace("_", " ")
    return Cell(words, {"ready": "green", "paused": "yellow", "online": "green"}.get(words))


def queues_table(console: Console, queues: Sequence[Json], *, pools: bool) -> None:
    """`pools`: say whose each is."""
    rows = [
        (
            *([name_cell(its), clean(its["pool"])] if pools else [name_cell(its)]),
            str(its["priority"]),
            limit_words(its["concurrency_limit"]),
            status_cell(its),
            console.when(its["last_polled_at"]),
            clean(its["description"] or "-"),
        )
        for its in queues
    ]
    console.table((_QUEUES[0], _POOL, *_QUEUES[1:]) if pools else _QUEUES, rows)
    caption(console, [its["paused"] for its in queues], "a paused queue")


def preview(call: Call, where: str, *, pools: bool) -> None:
    """Ask what would be delivered, and show it; `pools`: say by which."""
    found = call.client.get(where, {"hours": str(call.args.hours)})
    if call.console.json:
        call.console.document(found)
        return
    if found["runs"]:
        _offers_table(call.console, found["runs"], pools=pools)
    else:
        call.console.remark("no runs" if found["paused"] else "no runs; --hours looks further ahead")
    if not found["whole"]:
        call.console.remark("there may be more: the API shows 200 runs of a pool at once")
    for name in found["paused"]:
        call.console.remark(f"{name} is paused and delivers nothing")


def _offers_table(console: Console, runs: Sequence[Json], *, pools: bool) -> None:
    ids = {run["id"]: run["id"] for run in runs} if console.width is None else short_ids([run["id"] for run in runs])
    rows = [
        (
            Cell(console.when(run["due_at"]) + MARK, "red") if run["late"] else Cell(console.when(run["due_at"])),
            ids[run["id"]],
            clean(run["name"]),
            clean(run["deployment"] or run["deployment_id"] or "-"),
            *([clean(run["pool"] or "-")] if pools else []),
            clean(run["queue"] or "-"),
            clean(run["api_state_name"] or run["api_state"].capitalize()),
        )
        for run in runs
    ]
    console.table((*_OFFERS[:4], _POOL, *_OFFERS[4:]) if pools else _OFFERS, rows)
    caption(console, [run["late"] for run in runs], "a late run")


# --- values ---------------------------------------------------------------------------------------------------


def name(text: str) -> str:
    """For argparse: a name; nothing else may stand for nothing."""
    if not text.strip():
        raise ArgumentTypeError("a name is missing")
    return text


def limit(text: str) -> int:
    """For argparse: how many runs at a time."""
    return _number(text, least=0)


def priority(text: str) -> int:
    """For argparse: 1 is served first."""
    return _number(text, least=1)


def add_hours(parser: ArgumentParser) -> None:
    parser.add_argument("--hours", metavar="N", type=priority, default=1, help="how far to look ahead (1)")


def add_yes(parser: ArgumentParser) -> None:
    parser.add_argument("--yes", action="store_true", help="do not ask")


def _number(text: str, *, least: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) >= least):
        raise ArgumentTypeError(f"{text!r} is no whole number from {least} on")
    return int(text)


def template_of(path: str | None) -> Json | None:
    """The base job template in a file. Raises RunnerdError."""
    if path is None:
        return None
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except OSError as error:
        raise RunnerdError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise RunnerdError(f"cannot read {path}: it is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise RunnerdError(f"cannot use {path}: a base job template is a JSON object")
    return found


# --- changes --------------------------------------------------------------------------------------------------


def say(call: Call, document: Json, words: str) -> None:
    """The document, or what it comes to."""
    if call.console.json:
        call.console.document(document)
    else:
        call.console.line(words)


@dataclass(frozen=True, slots=True)
class Changes:
    """The commands that change one thing: of a pool or a queue, as `noun` says, at `place`."""

    noun: str
    place: Callable[[Call], str]

    def pause(self, call: Call) -> int:
        """Or resume it, as the command says."""
        return self._change(call, call.args.command, {})

    def set_limit(self, call: Call) -> int:
        return self.update(call, {"concurrency_limit": call.args.limit})

    def clear_limit(self, call: Call) -> int:
        return self.update(call, {"concurrency_limit": None})

    def update(self, call: Call, changes: Json) -> int:
        return self._change(call, "update", changes)

    def _change(self, call: Call, action: str, changes: Json) -> int:
        its = call.client.post(f"{self.place(call)}/{action}", changes)
        say(call, its, _changed(its, self.noun, changes or {"paused": action == "pause"}))
        return DONE


def _changed(its: Json, noun: str, changes: Mapping[str, Any]) -> str:
    """One change in words."""
    named = f"{noun} {clean(its['name'])}"
    if "paused" in changes:
        return f"{named} is paused: it delivers nothing" if changes["paused"] else f"{named} delivers again"
    if "priority" in changes:
        return f"{named} has priority {its['priority']}"
    most = its["concurrency_limit"]
    return f"{named} has no concurrency limit" if most is None else f"{named} has a concurrency limit of {most}"


def ask_before(call: Call) -> bool:
    """Whether a deletion needs a question. Raises Usage when nobody is there to answer it."""
    if call.args.yes:
        return False
    if not sys.stdin.isatty():
        raise Usage("this deletes without a way back, and nobody is here to ask; say so with --yes")
    return True


def confirmed(question: str) -> bool:
    """Yes or no; nothing, and the end of what is typed, is no."""
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline()
    if not answer.endswith("\n"):
        print(file=sys.stderr)
    return answer.strip().lower() in ("y", "yes")
