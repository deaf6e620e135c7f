"""runnerctl plan: show what would be started for a deployment or run, and what would hold it up; start nothing."""

from __future__ import annotations

import shlex
from argparse import ArgumentParser
from collections import defaultdict

from runnerd.cli.call import DONE, Call
from runnerd.cli.console import Cell, Console
from runnerd.cli.tables import format_source
from runnerd.cli.text import clean
from runnerd.control.client import Json, quote
from runnerd.core.errors import ControlError
from runnerd.core.units import format_duration, format_size

_DURATIONS, _SIZES = ("runtime_max", "stop_timeout"), ("memory_max", "output_max")


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "ref",
        metavar="DEPLOYMENT|RUN",
        help="a deployment by its name or flow/name (also one of a work pool), or a run by its id or name",
    )


def run(call: Call) -> int:
    plan = _read(call, call.args.ref)
    if call.console.json:
        call.console.print_document(plan)
    else:
        print_plan(call.console, plan)
    return DONE


def _read(call: Call, ref: str) -> Json:
    """Read the plan of a deployment, else of a run, as `runnerctl status` finds them."""
    try:
        return call.client.get(f"/v1/deployments/{quote(ref)}/plan")
    except ControlError as error:
        if error.status != 404:
            raise
    try:
        return call.client.get(f"/v1/runs/{quote(ref)}/plan")
    except ControlError as error:
        if error.status != 404:
            raise
        detail = f"there is no deployment or run {ref!r}; see runnerctl deployments and runnerctl runs --all"
        raise ControlError(detail, status=404) from None


def print_plan(console: Console, plan: Json) -> None:
    console.print_fields([*_subject(console, plan), *_start(plan), *_limits(plan), *_times(console, plan)])
    if plan["held_by"]:
        console.print_line()
        console.print_line(console.paint("Held up by", "bold"))
        for why in plan["held_by"]:
            console.print_line("  " + console.paint(clean(why), "yellow"))
    if plan["environment"]:
        console.print_line()
        console.print_line(console.paint("Variables", "bold"))
        for source, names in _by_source(plan["environment"]).items():
            console.print_line(f"  {clean(source)}: {clean(' '.join(names))}")


def _subject(console: Console, plan: Json) -> list[tuple[str, str | Cell | None]]:
    run = f"{clean(plan['name'])} ({clean(plan['id'])})" if plan["kind"] == "run" else None
    pool = "/".join(part for part in (plan["pool"], plan["queue"]) if part)
    deployment = "/".join(part for part in (plan["flow"], plan["deployment"]) if part)
    by = "this host" if plan["served"] else "not this host; runnerctl execute would start it like this"
    problem = plan["problem"]
    return [
        ("Run", run),
        ("Deployment" if plan["deployment"] or not deployment else "Flow", clean(deployment or "-")),
        ("Pool", clean(pool)),
        ("Started by", Cell(by, None if plan["served"] else "yellow")),
        ("Problem", Cell(clean(problem), "red") if problem else None),
    ]


def _start(plan: Json) -> list[tuple[str, str | Cell | None]]:
    if plan["problem"]:
        return []
    group = f", group {clean(plan['group'])}" if plan["group"] else ""
    directory = clean(plan["directory"])
    start = plan["start"]
    return [
        ("User", f"{clean(plan['user'] or '-')}{group}"),
        ("Command", clean(shlex.join(plan["command"]))),
        ("Entrypoint", clean(plan.get("entrypoint") or "")),  # an older daemon has none
        ("Directory", f"a new one below {directory}" if plan["scratch"] else directory),
        ("Source", format_source(plan.get("source"))),
        *((name.title(), clean(shlex.join(words))) for name in ("before", "after") for words in plan.get(name) or ()),
        ("Start", clean(start["kind"] + (f": {start['why']}" if start["why"] else ""))),
    ]


def _limits(plan: Json) -> list[tuple[str, str | Cell | None]]:
    limits = plan["limits"]
    words = [f"{key} {_limit(key, limits[key])}" for key in limits if _is_plain(limits[key])]
    words += [f"{name} {soft}:{hard}" for name, (soft, hard) in (limits.get("rlimits") or {}).items()]
    slots = [f"{one['name']} {one['used']} of {one['max']}" for one in limits["concurrency"]]
    return [("Limits", clean(", ".join(words))), ("Slots", clean(", ".join(slots)))]


def _is_plain(value: Json) -> bool:
    return value is not None and not isinstance(value, (dict, list))


def _limit(key: str, value: Json) -> str:
    if key in _DURATIONS:
        return format_duration(value)
    return format_size(value) if key in _SIZES else str(value)


def _times(console: Console, plan: Json) -> list[tuple[str, str | Cell | None]]:
    return [
        ("Due", console.when_in_full(plan["due_at"]) if plan["due_at"] else None),
        ("Next runs", ", ".join(map(console.when_in_full, plan["next"])) or "none scheduled"),
    ]


def _by_source(environment: Json) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for variable in environment:
        found[variable["source"]].append(variable["name"])
    return dict(sorted(found.items()))
