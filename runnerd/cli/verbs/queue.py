"""runnerctl queue: look at the work queues of a pool and change them, with the daemon's credentials."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable

from runnerd.cli.call import DONE, FAILED, Call
from runnerd.cli.pool_tables import (
    Changes,
    add_hours,
    add_yes,
    ask_before,
    confirmed,
    limit,
    limit_words,
    name,
    preview,
    priority,
    queues_table,
    quote,
    say,
    status_cell,
)
from runnerd.cli.text import clean

# Where Prefect keeps queues that were made without a pool; not imported, the model's module is slow to load.
_AGENT_POOL = "default-agent-pool"


# --- what each takes ------------------------------------------------------------------------------------------


def arguments(parser: ArgumentParser) -> None:
    del parser  # its commands have them


def _ls_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--pool", metavar="P", type=name, help="of this pool only")


def _named(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", type=name)
    parser.add_argument("--pool", metavar="P", type=name, default=_AGENT_POOL, help=f"its work pool ({_AGENT_POOL})")


def _create_arguments(parser: ArgumentParser) -> None:
    _named(parser)
    parser.add_argument("--priority", metavar="N", type=priority, help="1 is served first (the first that is free)")
    parser.add_argument("--concurrency-limit", metavar="N", type=limit, help="how many runs at a time")
    parser.add_argument("--description", metavar="D", help="what it is for")


def _preview_arguments(parser: ArgumentParser) -> None:
    _named(parser)
    add_hours(parser)


def _delete_arguments(parser: ArgumentParser) -> None:
    _named(parser)
    add_yes(parser)


def _priority_arguments(parser: ArgumentParser) -> None:
    _named(parser)
    parser.add_argument("priority", metavar="N", type=priority)


def _limit_arguments(parser: ArgumentParser) -> None:
    _named(parser)
    parser.add_argument("limit", metavar="N", type=limit)


# --- what each does -------------------------------------------------------------------------------------------


def run(call: Call) -> int:
    return _DO[call.args.command](call)


def _ls(call: Call) -> int:
    pool = call.args.pool
    queues = call.client.get("/v1/queues" if pool is None else f"/v1/pools/{quote(pool)}/queues")
    if call.console.json:
        call.console.document(queues)
    elif queues:
        queues_table(call.console, queues, pools=pool is None)
    else:
        call.console.remark("no work queues")
    return DONE


def _inspect(call: Call) -> int:
    console, its = call.console, call.client.get(_place(call))
    if console.json:
        console.document(its)
        return DONE
    console.fields(
        [
            ("Queue", clean(its["name"])),
            ("Id", clean(its["id"])),
            ("Pool", clean(its["pool"]) + (", whose default queue it is" if its["default"] else "")),
            ("Description", clean(its["description"] or "")),
            ("Status", status_cell(its)),
            ("Priority", str(its["priority"])),
            ("Concurrency limit", limit_words(its["concurrency_limit"])),
            ("Last polled", console.when_in_full(its["last_polled_at"])),
            ("Takes only", clean(its["filter"] or "")),
        ]
    )
    return DONE


def _preview(call: Call) -> int:
    preview(call, f"{_place(call)}/preview", pools=False)
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
    say(call, made, words)
    return DONE


def _set_priority(call: Call) -> int:
    return _CHANGES.update(call, {"priority": call.args.priority})


def _delete(call: Call) -> int:
    if ask_before(call):
        its = call.client.get(_place(call))
        if not confirmed(f"Delete work queue {clean(its['name'])} of work pool {clean(its['pool'])}?"):
            call.console.remark("nothing was deleted")
            return FAILED
    was = call.client.post(f"{_place(call)}/delete")
    say(call, was, f"deleted work queue {clean(was['name'])} of work pool {clean(was['pool'])}")
    return DONE


def _place(call: Call) -> str:
    return f"/v1/pools/{quote(call.args.pool)}/queues/{quote(call.args.name)}"


_CHANGES = Changes("work queue", _place)
# command: (what it does, its arguments)
COMMANDS: dict[str, tuple[str, Callable[[ArgumentParser], None]]] = {
    "ls": ("the work queues, of every pool or of one", _ls_arguments),
    "create": ("create a work queue", _create_arguments),
    "inspect": ("everything about one", _named),
    "preview": ("the runs that are to come", _preview_arguments),
    "pause": ("have it deliver nothing", _named),
    "resume": ("have it deliver again", _named),
    "delete": ("delete it", _delete_arguments),
    "set-priority": ("serve it before those of higher numbers", _priority_arguments),
    "set-concurrency-limit": ("let it have so many runs at a time", _limit_arguments),
    "clear-concurrency-limit": ("let it have any number of runs", _named),
}
_DO = {
    "ls": _ls,
    "create": _create,
    "inspect": _inspect,
    "preview": _preview,
    "pause": _CHANGES.pause,
    "resume": _CHANGES.pause,
    "delete": _delete,
    "set-priority": _set_priority,
    "set-concurrency-limit": _CHANGES.set_limit,
    "clear-concurrency-limit": _CHANGES.clear_limit,
}
