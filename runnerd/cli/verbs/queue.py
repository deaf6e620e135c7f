"""runnerctl queue: show and change work queues in Prefect, through the daemon."""

from __future__ import annotations

from runnerd.cli.call import DONE, FAILED, Call
from runnerd.cli.command import Command, argument
from runnerd.cli.pool_arguments import (
    CONCURRENCY_LIMIT,
    DESCRIPTION,
    HOURS,
    LIMIT,
    YES,
    parse_name,
    parse_priority,
)
from runnerd.cli.pool_changes import PoolChanges, print_result
from runnerd.cli.pool_tables import format_limit, print_preview, print_queues, status_cell
from runnerd.cli.text import clean
from runnerd.control.client import Json, quote

# The pool of queues that were created without one; not imported, because core/prefect.py is slow to load.
_AGENT_POOL = "default-agent-pool"


def _ls(call: Call) -> int:
    pool = call.args.pool
    queues = call.client.get("/v1/queues" if pool is None else f"/v1/pools/{quote(pool)}/queues")
    if call.console.json:
        call.console.print_document(queues)
    elif queues:
        print_queues(call.console, queues, pools=pool is None)
    else:
        call.console.print_remark("no work queues")
    return DONE


def _inspect(call: Call) -> int:
    console, its = call.console, call.client.get(_place(call))
    if console.json:
        console.print_document(its)
        return DONE
    console.print_fields(
        [
            ("Queue", clean(its["name"])),
            ("Id", clean(its["id"])),
            ("Pool", clean(its["pool"]) + (" (its default queue)" if its["default"] else "")),
            ("Description", clean(its["description"] or "")),
            ("Status", status_cell(its)),
            ("Priority", str(its["priority"])),
            ("Concurrency limit", format_limit(its["concurrency_limit"])),
            ("Last polled", console.when_in_full(its["last_polled_at"])),
            ("Filter", clean(its["filter"] or "")),
        ]
    )
    return DONE


def _preview(call: Call) -> int:
    print_preview(call, f"{_place(call)}/preview", pools=False)
    return DONE


def _create(call: Call) -> int:
    args = call.args
    body = {
        "name": args.name,
        "priority": args.priority,
        "concurrency_limit": args.concurrency_limit,
        "description": args.description,
    }
    made = call.client.post(f"/v1/pools/{quote(args.pool)}/queues", body)
    words = f"created work queue {clean(made['name'])} in work pool {clean(made['pool'])}, priority {made['priority']}"
    print_result(call, made, words)
    return DONE


def _set_priority(call: Call) -> int:
    return _CHANGES.update(call, {"priority": call.args.priority})


def _delete(call: Call) -> int:
    was = _CHANGES.delete(call, _question)
    if was is None:
        return FAILED
    print_result(call, was, f"deleted work queue {clean(was['name'])} of work pool {clean(was['pool'])}")
    return DONE


def _question(its: Json) -> str:
    return f"Delete work queue {clean(its['name'])} of work pool {clean(its['pool'])}?"


def _place(call: Call) -> str:
    return f"/v1/pools/{quote(call.args.pool)}/queues/{quote(call.args.name)}"


_CHANGES = PoolChanges("work queue", _place)
_NAME = argument("name", metavar="NAME", type=parse_name, help="the work queue's name")
_ONE_POOL = argument(
    "--pool", metavar="P", type=parse_name, help="list only the queues of this work pool (default: every pool)"
)
_POOL = argument(
    "--pool", metavar="P", type=parse_name, default=_AGENT_POOL, help=f"use the queue of this work pool ({_AGENT_POOL})"
)
_IN_POOL = argument(
    "--pool", metavar="P", type=parse_name, default=_AGENT_POOL, help=f"create it in this work pool ({_AGENT_POOL})"
)
_NEW_PRIORITY = argument(
    "--priority",
    metavar="N",
    type=parse_priority,
    help="set the priority; 1 is served first (default: the first free one)",
)
_PRIORITY = argument("priority", metavar="N", type=parse_priority, help="the new priority; 1 is served first")

COMMANDS = {
    "ls": Command("list the work queues", (_ONE_POOL,), _ls),
    "create": Command(
        "create a work queue",
        (_NAME, _IN_POOL, _NEW_PRIORITY, CONCURRENCY_LIMIT.with_default("no limit"), DESCRIPTION.with_default("none")),
        _create,
    ),
    "inspect": Command("show a queue in full", (_NAME, _POOL), _inspect),
    "preview": Command("list the runs that a queue would deliver next", (_NAME, _POOL, HOURS), _preview),
    "pause": Command("pause a queue: it delivers no runs", (_NAME, _POOL), _CHANGES.pause),
    "resume": Command("resume a queue: it delivers runs again", (_NAME, _POOL), _CHANGES.resume),
    "delete": Command("delete a queue", (_NAME, _POOL, YES), _delete),
    "set-priority": Command("set a queue's priority within its pool", (_NAME, _POOL, _PRIORITY), _set_priority),
    "set-concurrency-limit": Command("set a queue's concurrency limit", (_NAME, _POOL, LIMIT), _CHANGES.set_limit),
    "clear-concurrency-limit": Command("remove a queue's concurrency limit", (_NAME, _POOL), _CHANGES.clear_limit),
}
