"""runnerctl pool: look at the API's work pools and change them, with the daemon's credentials."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Callable

from runnerd.cli.call import DONE, FAILED, Call, Usage
from runnerd.cli.console import Column
from runnerd.cli.pool_tables import (
    Changes,
    add_hours,
    add_yes,
    ask_before,
    caption,
    confirmed,
    limit,
    limit_words,
    name,
    name_cell,
    preview,
    queues_table,
    quote,
    say,
    status_cell,
    template_of,
)
from runnerd.cli.text import clean, count
from runnerd.core.errors import RunnerdError

_POOLS = (
    Column("NAME"),
    Column("TYPE"),
    Column("CONCURRENCY LIMIT", right=True),
    Column("STATUS"),
    Column("SERVED"),
    Column("DESCRIPTION", flexible=True, spare=True),
    Column("ID", spare=True),
)
_WORKERS = (Column("WORKER", flexible=True), Column("STATUS"), Column("LAST HEARTBEAT"))


# --- what each takes ------------------------------------------------------------------------------------------


def arguments(parser: ArgumentParser) -> None:
    del parser  # its commands have them


def _none(parser: ArgumentParser) -> None:
    del parser


def _named(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", type=name)


def _create_arguments(parser: ArgumentParser) -> None:
    _named(parser)
    parser.add_argument("--type", metavar="T", help="of its workers (process)")
    parser.add_argument("--paused", action="store_true", help="it delivers nothing until it is resumed")
    parser.add_argument("--update", action="store_true", help="make one that is there already like this")
    _about(parser)


def _update_arguments(parser: ArgumentParser) -> None:
    _named(parser)
    _about(parser)


def _about(parser: ArgumentParser) -> None:
    parser.add_argument("--base-job-template", metavar="F", help="a JSON file with its base job template")
    parser.add_argument("--concurrency-limit", metavar="N", type=limit, help="how many runs at a time")
    parser.add_argument("--description", metavar="D", help="what it is for")


def _preview_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", type=name, nargs="?", help="every pool without one")
    add_hours(parser)


def _delete_arguments(parser: ArgumentParser) -> None:
    _named(parser)
    add_yes(parser)


def _limit_arguments(parser: ArgumentParser) -> None:
    _named(parser)
    parser.add_argument("limit", metavar="N", type=limit)


def _template_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--type", metavar="T", type=name, required=True, help="of a pool's workers")
    parser.add_argument("--file", metavar="F", help="write it there")


# --- what each does -------------------------------------------------------------------------------------------


def run(call: Call) -> int:
    return _DO[call.args.command](call)


def _ls(call: Call) -> int:
    console, pools = call.console, call.client.get("/v1/pools")
    if console.json:
        console.document(pools)
    elif pools:
        rows = [
            (
                name_cell(its),
                clean(its["type"]),
                limit_words(its["concurrency_limit"]),
                status_cell(its),
                "here" if its["served"] else "-",
                clean(its["description"] or "-"),
                clean(its["id"]),
            )
            for its in pools
        ]
        console.table(_POOLS, rows)
        caption(console, [its["paused"] for its in pools], "a paused pool")
    else:
        console.remark("no work pools; runnerctl pool create makes one")
    return DONE


def _inspect(call: Call) -> int:
    console, its = call.console, call.client.get(_place(call))
    if console.json:
        console.document(its)
        return DONE
    variables = (its["base_job_template"].get("variables") or {}).get("properties") or {}
    console.fields(
        [
            ("Pool", clean(its["name"])),
            ("Id", clean(its["id"])),
            ("Type", clean(its["type"])),
            ("Description", clean(its["description"] or "")),
            ("Status", status_cell(its)),
            ("Concurrency limit", limit_words(its["concurrency_limit"])),
            ("Served", "by this host" if its["served"] else "not by this host"),
            ("Job variables", clean(", ".join(variables)) or "none"),
        ]
    )
    console.line()
    queues_table(console, its["queues"], pools=False)
    if its["workers"]:
        rows = [
            (clean(one["name"]), status_cell(one), console.when(one["last_heartbeat_at"])) for one in its["workers"]
        ]
        console.line()
        console.table(_WORKERS, rows)
    return DONE


def _preview(call: Call) -> int:
    every = call.args.name is None
    preview(call, "/v1/preview" if every else f"{_place(call)}/preview", pools=every)
    return DONE


def _create(call: Call) -> int:
    args = call.args
    body = {
        "name": args.name,
        "type": args.type,
        "base_job_template": template_of(args.base_job_template),
        "description": args.description,
        "paused": args.paused,
        "concurrency_limit": args.concurrency_limit,
        "update": args.update,
    }
    made = call.client.post("/v1/pools", body)
    verb = "created" if made["created"] else "updated"
    say(call, made, f"{verb} work pool {clean(made['name'])} of type {clean(made['type'])}")
    if not call.console.json and not made["served"]:
        call.console.remark("name it under pools: in runnerd.yaml to have this host serve it")
    return DONE


def _update(call: Call) -> int:
    args = call.args
    given = {
        "base_job_template": template_of(args.base_job_template),
        "concurrency_limit": args.concurrency_limit,
        "description": args.description,
    }
    changes = {key: value for key, value in given.items() if value is not None}
    if not changes:
        raise Usage("say what to change: --base-job-template, --concurrency-limit or --description")
    its = call.client.post(f"{_place(call)}/update", changes)
    say(call, its, f"updated work pool {clean(its['name'])}")
    return DONE


def _delete(call: Call) -> int:
    if ask_before(call):
        its = call.client.get(_place(call))
        queues = count(len(its["queues"]), "queue")
        if not confirmed(f"Delete work pool {clean(its['name'])} with {queues}?"):
            call.console.remark("nothing was deleted")
            return FAILED
    was = call.client.post(f"{_place(call)}/delete")
    say(call, was, f"deleted work pool {clean(was['name'])}")
    if not call.console.json and was["served"]:
        call.console.remark("this host serves it: take it out of pools: in runnerd.yaml as well")
    return DONE


def _template(call: Call) -> int:
    its = call.client.get(f"/v1/worker-types/{quote(call.args.type)}")
    template, path = its["base_job_template"], call.args.file
    if path is None:
        call.console.document(template)
        return DONE
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(json.dumps(template, indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise RunnerdError(f"cannot write {path}: {error.strerror}") from None
    say(call, template, f"wrote {clean(path)}")
    return DONE


def _place(call: Call) -> str:
    return f"/v1/pools/{quote(call.args.name)}"


_CHANGES = Changes("work pool", _place)
# command: (what it does, its arguments)
COMMANDS: dict[str, tuple[str, Callable[[ArgumentParser], None]]] = {
    "ls": ("the work pools", _none),
    "create": ("create a work pool", _create_arguments),
    "inspect": ("everything about one", _named),
    "preview": ("the runs that are to come", _preview_arguments),
    "pause": ("have it deliver nothing", _named),
    "resume": ("have it deliver again", _named),
    "delete": ("delete it with its queues", _delete_arguments),
    "update": ("change what is said about it", _update_arguments),
    "set-concurrency-limit": ("let it have so many runs at a time", _limit_arguments),
    "clear-concurrency-limit": ("let it have any number of runs", _named),
    "get-default-base-job-template": ("the base job template of a type of workers", _template_arguments),
}
_DO = {
    "ls": _ls,
    "create": _create,
    "inspect": _inspect,
    "preview": _preview,
    "pause": _CHANGES.pause,
    "resume": _CHANGES.pause,
    "delete": _delete,
    "update": _update,
    "set-concurrency-limit": _CHANGES.set_limit,
    "clear-concurrency-limit": _CHANGES.clear_limit,
    "get-default-base-job-template": _template,
}
