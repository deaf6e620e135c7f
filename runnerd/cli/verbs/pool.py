"""runnerctl pool: show and change work pools in Prefect, through the daemon."""

from __future__ import annotations

import json

from runnerd.cli.call import DONE, FAILED, Call, UsageError
from runnerd.cli.command import Command, argument
from runnerd.cli.console import Column
from runnerd.cli.pool_arguments import (
    CONCURRENCY_LIMIT,
    DESCRIPTION,
    HOURS,
    LIMIT,
    TEMPLATE,
    YES,
    parse_name,
    read_template,
)
from runnerd.cli.pool_changes import PoolChanges, print_result
from runnerd.cli.pool_tables import format_limit, name_cell, print_caption, print_preview, print_queues, status_cell
from runnerd.cli.text import clean, format_count
from runnerd.control.client import Json, quote
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


def _ls(call: Call) -> int:
    console, pools = call.console, call.client.get("/v1/pools")
    if console.json:
        console.print_document(pools)
    elif pools:
        rows = [
            (
                name_cell(its),
                clean(its["type"]),
                format_limit(its["concurrency_limit"]),
                status_cell(its),
                "here" if its["served"] else "-",
                clean(its["description"] or "-"),
                clean(its["id"]),
            )
            for its in pools
        ]
        console.print_table(_POOLS, rows)
        print_caption(console, [its["paused"] for its in pools], "a paused pool")
    else:
        console.print_remark("no work pools; create one with: runnerctl pool create")
    return DONE


def _inspect(call: Call) -> int:
    console, its = call.console, call.client.get(_place(call))
    if console.json:
        console.print_document(its)
        return DONE
    variables = (its["base_job_template"].get("variables") or {}).get("properties") or {}
    console.print_fields(
        [
            ("Pool", clean(its["name"])),
            ("Id", clean(its["id"])),
            ("Type", clean(its["type"])),
            ("Description", clean(its["description"] or "")),
            ("Status", status_cell(its)),
            ("Concurrency limit", format_limit(its["concurrency_limit"])),
            ("Served", "by this host" if its["served"] else "not by this host"),
            ("Created", console.when_in_full(its.get("created_at"))),
            ("Updated", console.when_in_full(its.get("updated_at"))),
            ("Job variables", clean(", ".join(variables)) or "none"),
        ]
    )
    console.print_line()
    print_queues(console, its["queues"], pools=False)
    if its["workers"]:
        rows = [
            (clean(one["name"]), status_cell(one), console.when(one["last_heartbeat_at"])) for one in its["workers"]
        ]
        console.print_line()
        console.print_table(_WORKERS, rows)
    return DONE


def _preview(call: Call) -> int:
    every = call.args.name is None
    print_preview(call, "/v1/preview" if every else f"{_place(call)}/preview", pools=every)
    return DONE


def _create(call: Call) -> int:
    args = call.args
    body = {
        "name": args.name,
        "type": args.type,
        "base_job_template": read_template(args.base_job_template),
        "description": args.description,
        "paused": args.paused,
        "concurrency_limit": args.concurrency_limit,
        "update": args.update,
    }
    made = call.client.post("/v1/pools", body)
    verb = "created" if made["created"] else "updated"
    name = clean(made["name"])
    print_result(call, made, f"{verb} work pool {name}")
    if not call.console.json:
        limit = format_limit(made["concurrency_limit"])
        fields = [("Id", clean(made["id"])), ("Type", clean(made["type"])), ("Concurrency limit", limit)]
        call.console.print_fields(fields)
        serve = "" if made["served"] else f"add {{name: {name}}} under pools: in runnerd.yaml and reload; then "
        resume = f"; then resume it, because it is paused: runnerctl pool resume {name}" if made["paused"] else ""
        call.console.print_remark(f"next: {serve}deploy a flow to it: prefect deploy --pool {name}{resume}")
    return DONE


def _update(call: Call) -> int:
    args = call.args
    given = {
        "base_job_template": read_template(args.base_job_template),
        "concurrency_limit": args.concurrency_limit,
        "description": args.description,
    }
    changes = {key: value for key, value in given.items() if value is not None}
    if not changes:
        raise UsageError(
            "cannot update: no change given; use --base-job-template, --concurrency-limit or --description"
        )
    its = call.client.post(f"{_place(call)}/update", changes)
    print_result(call, its, f"updated work pool {clean(its['name'])}")
    return DONE


def _delete(call: Call) -> int:
    was = _CHANGES.delete(call, _question)
    if was is None:
        return FAILED
    print_result(call, was, f"deleted work pool {clean(was['name'])}")
    if not call.console.json and was["served"]:
        call.console.print_remark("this host serves the pool: remove it from pools: in runnerd.yaml as well")
    return DONE


def _question(its: Json) -> str:
    return f"Delete work pool {clean(its['name'])} with {format_count(len(its['queues']), 'queue')}?"


def _template(call: Call) -> int:
    its = call.client.get(f"/v1/worker-types/{quote(call.args.type)}")
    template, path = its["base_job_template"], call.args.file
    if path is None:
        call.console.print_document(template)
        return DONE
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(json.dumps(template, indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise RunnerdError(f"cannot write {path}: {error.strerror}") from None
    print_result(call, template, f"wrote {clean(path)}")
    return DONE


def _place(call: Call) -> str:
    return f"/v1/pools/{quote(call.args.name)}"


_CHANGES = PoolChanges("work pool", _place)
_NAME = argument("name", metavar="NAME", type=parse_name, help="the work pool's name")
_ANY = argument("name", metavar="NAME", type=parse_name, nargs="?", help="the work pool's name (default: every pool)")
_TYPE = argument("--type", metavar="T", help="set the worker type (default: process)")
_PAUSED = argument("--paused", action="store_true", help="create a paused pool: it delivers no runs until resumed")
_UPDATE = argument(
    "--update", action="store_true", help="if the pool exists, change it to these settings (default: fail)"
)
_OF_TYPE = argument("--type", metavar="T", type=parse_name, required=True, help="use this worker type")
_FILE = argument("--file", metavar="F", help="write the template to this file (default: standard output)")

COMMANDS = {
    "ls": Command("list the work pools", (), _ls),
    "create": Command(
        "create a work pool",
        (
            _NAME,
            _TYPE,
            _PAUSED,
            _UPDATE,
            TEMPLATE.with_default("the worker type's own"),
            CONCURRENCY_LIMIT.with_default("no limit"),
            DESCRIPTION.with_default("none"),
        ),
        _create,
    ),
    "inspect": Command("show a pool in full, with its queues and workers", (_NAME,), _inspect),
    "preview": Command("list the runs that a pool would deliver next", (_ANY, HOURS), _preview),
    "pause": Command("pause a pool: it delivers no runs", (_NAME,), _CHANGES.pause),
    "resume": Command("resume a pool: it delivers runs again", (_NAME,), _CHANGES.resume),
    "delete": Command("delete a pool and its queues", (_NAME, YES), _delete),
    "update": Command(
        "change a pool's base job template, concurrency limit or description",
        (_NAME, TEMPLATE, CONCURRENCY_LIMIT, DESCRIPTION),
        _update,
    ),
    "set-concurrency-limit": Command("set a pool's concurrency limit", (_NAME, LIMIT), _CHANGES.set_limit),
    "clear-concurrency-limit": Command("remove a pool's concurrency limit", (_NAME,), _CHANGES.clear_limit),
    "get-default-base-job-template": Command(
        "print the default base job template of a worker type", (_OF_TYPE, _FILE), _template
    ),
}
