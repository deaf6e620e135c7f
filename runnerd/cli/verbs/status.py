"""runnerctl status: show the host at a glance, or one run or deployment in full."""

from __future__ import annotations

from argparse import ArgumentParser

from runnerd.cli.call import DONE, Call
from runnerd.cli.console import Cell, Console
from runnerd.cli.tables import (
    WAITING_SHOWN,
    format_problem,
    format_source,
    print_deployments,
    print_pools,
    print_runs,
    print_waiting,
    print_warm,
    style_state,
)
from runnerd.cli.text import (
    clean,
    format_count,
    format_phase,
    format_running,
    format_state,
    format_verdict,
    seconds_taken,
)
from runnerd.control.client import Json, quote
from runnerd.core.errors import ControlError
from runnerd.core.units import format_duration, format_size

_IN_MAINTENANCE = "in maintenance"


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "ref", nargs="?", metavar="RUN|DEPLOYMENT", help="show this run or deployment in full (default: the host)"
    )


def run(call: Call) -> int:
    if call.args.ref is None:
        kind, document = "host", call.client.get("/v1/status")
    else:
        kind, document = _find(call, call.args.ref)
    if call.console.json:
        call.console.print_document(document)
    else:
        {"host": print_host, "run": print_run, "deployment": print_deployment}[kind](call.console, document)
    return DONE


def print_host(console: Console, status: Json) -> None:
    console.print_fields(_host_fields(console, status))
    console.print_line()
    if status["runs"]:
        explained = {its["id"] for its in (status.get("waiting") or ())[:WAITING_SHOWN]}
        print_runs(console, status["runs"], explained=explained)
    else:
        console.print_line("No runs.")
    if status.get("waiting"):
        console.print_line()
        print_waiting(console, status["waiting"], total=status["waiting_total"])
    console.print_line()
    # An invalid deployment's problem is the whole line of its file's.
    below = {words for its in status["problems"] for words in (its["message"], format_problem(its))}
    if status["deployments"]:
        print_deployments(console, status["deployments"], below=below)
    else:
        console.print_line("No deployments.")
    if status.get("pools"):
        console.print_line()
        print_pools(console, status["pools"], below=below)
    if status.get("warm"):
        console.print_line()
        print_warm(console, status["warm"])
    if status["problems"]:
        console.print_line()
        console.print_line(console.paint("Problems", "bold"))
        for problem in status["problems"]:
            console.print_line("  " + console.paint(format_problem(problem), "red"))


def _host_fields(console: Console, status: Json) -> list[tuple[str, str | Cell | None]]:
    api, limits = status["api"], status["limits"]["runs"]
    used = f"{limits['used']} of {limits['max']}"
    tags = status["limits"].get("tags") or {}
    problems = len(status["problems"])
    waiting = format_count(status["waiting_total"], "run") if status.get("waiting_total") else ""
    return [
        ("Host", clean(status["name"])),
        ("runnerd", _version(console, status)),
        ("API", Cell(_api(console, api), None if api["state"] == "ok" else style_state(api["state"]).style)),
        ("Events", _events(console, api.get("stream"))),
        ("Requests", _requests(api.get("requests_per_minute"))),
        ("Draining", Cell(_draining(console, status), "yellow") if status["draining"] else None),
        ("Runs", Cell(used, "yellow" if limits["used"] >= limits["max"] else None)),
        ("Waiting", Cell(f"{waiting}, see below", "yellow") if waiting else None),
        ("Tags", ", ".join(f"{clean(tag)} {u['used']} of {u['max']}" for tag, u in tags.items())),
        ("Problems", Cell(f"{format_count(problems, 'problem')}, see below", "red") if problems else None),
    ]


def _api(console: Console, api: Json) -> str:
    state, detail = api["state"], api["detail"] if api["state"] != "ok" else ""
    if api.get("maintenance"):
        state, detail = _IN_MAINTENANCE, detail.removeprefix(_IN_MAINTENANCE).removeprefix(": ")
    since = console.when_in_full(api["since"])
    return f"{clean(state)} {clean(api['url'])} since {since}" + (f": {clean(detail)}" if detail else "")


def _events(console: Console, stream: Json) -> str | None:
    """Describe the subscription to the API's events; None of a runnerd that has none."""
    if not stream:
        return None
    detail = "" if stream["state"] == "live" else f": {clean(stream['detail'])}"
    return f"{clean(stream['state'])} since {console.when_in_full(stream['since'])}{detail}"


def _requests(per_minute: int | None) -> str | None:
    """Describe how often the API is asked; None of a runnerd that does not say."""
    return None if per_minute is None else f"{per_minute} in the last minute"


def _version(console: Console, status: Json) -> str:
    pid = f", pid {status['pid']}" if status.get("pid") else ""
    since = f", since {console.when_in_full(status['started_at'])}" if status.get("started_at") else ""
    return f"{clean(status['version'])}{pid}{since}"


def _draining(console: Console, status: Json) -> str:
    drain = status.get("drain") or {}
    words = f"since {console.when_in_full(drain['since'])}" if drain.get("since") else "yes"
    if drain.get("until"):
        words += f", live runs will be stopped at {console.when_in_full(drain['until'])}"
    if drain.get("reason"):
        words += f": {clean(drain['reason'])}"
    return words if drain.get("stopping") else words + "; runnerctl undrain ends the drain"


def print_run(console: Console, run: Json) -> None:
    its_exit = run["exit"] or {}
    seconds = seconds_taken(run, console.now)
    console.print_fields(
        [
            ("Run", clean(run["id"])),
            ("Name", clean(run["name"])),
            ("Deployment", _of_flow(run["flow"], run["deployment"])),
            ("Pool", clean("/".join(part for part in (run.get("pool"), run.get("queue")) if part))),
            ("Job", clean(run.get("process_name") or "")),
            ("Source", format_source(run.get("source"))),
            ("Labels", clean(", ".join(f"{key}={value}" for key, value in (run.get("labels") or {}).items()))),
            ("Phase", style_state(format_phase(run))),
            ("Attempt", str(run["attempt"]) if (run.get("attempt") or 1) > 1 else None),
            ("Waits for", clean(run.get("waiting") or "")),
            ("State", style_state(format_state(run))),
            ("Verdict", format_verdict(run, console.now) if run["phase"] == "done" else None),
            ("Created", _when_known(console, run.get("run_created_at"))),
            ("Claimed", _when_known(console, run["created_at"] if run["phase"] else None)),
            ("Started", console.when_in_full(run["started_at"])),
            ("Due", console.when_in_full(run["due_at"]) if run.get("due_at") else None),
            ("Ended", console.when_in_full(run["ended_at"])),
            ("Took" if run["ended_at"] else "Running for", _duration(seconds)),
            ("Start", _start(run)),
            ("Tags", clean(", ".join(run.get("tags") or ()))),
            ("Process", _process(run)),
            ("User", clean(run["user"] or "-")),
            ("Memory", None if run["memory_bytes"] is None else format_size(run["memory_bytes"], rounded=True)),
            ("CPU", _duration(run["cpu_seconds"])),
            ("Exit", clean(its_exit.get("words") or "")),
        ]
    )


def print_deployment(console: Console, its: Json) -> None:
    place = f"{its['file']}:{its['line']}" if its["file"] else None
    console.print_fields(
        [
            ("Deployment", _of_flow(its["flow"], its["name"])),
            ("Id", clean(its["id"] or "-")),
            ("State", style_state(its["state"])),
            ("Problem", Cell(clean(its["problem"]), "red") if its["problem"] else None),
            ("Next run", console.when_in_full(its["next_run_at"])),
            ("Running", format_running(its, of=" of ")),
            ("File", clean(place) if place else None),
            ("Command", clean(its["command"]))
            if its.get("command")
            else ("Entrypoint", clean(its.get("entrypoint") or "")),
            ("Source", format_source(its.get("source"))),
            ("Pulled", _when_known(console, (its.get("source") or {}).get("pulled_at"))),
            ("Tags", clean(", ".join(its.get("tags") or ()))),
        ]
    )


def _find(call: Call, ref: str) -> tuple[str, Json]:
    """Find a deployment or a run; deployments first, because their names are exact and a run's id may be a prefix."""
    try:
        return "deployment", call.client.get(f"/v1/deployments/{quote(ref)}")
    except ControlError as error:
        if error.status != 404:
            raise
    try:
        return "run", call.client.get(f"/v1/runs/{quote(ref)}")
    except ControlError as error:
        if error.status != 404:
            raise
        detail = f"there is no run or deployment {ref!r}; see runnerctl runs --all and runnerctl deployments"
        raise ControlError(detail, status=404) from None


def _start(run: Json) -> str:
    """Describe how the run was started: cold, with the reason where it could not be warm."""
    problem = run.get("start_problem")
    return clean(run["start"] or "-") + (f": {clean(problem)}" if problem else "")


def _when_known(console: Console, stamp: str | None) -> str | None:
    return console.when_in_full(stamp) if stamp else None


def _of_flow(flow: str | None, deployment: str | None) -> str:
    return clean("/".join(part for part in (flow, deployment) if part) or "-")


def _process(run: Json) -> str | None:
    if not run["pid"] or run["ended_at"]:  # another process may have the number by now
        return None
    return f"pid {run['pid']}, group {run['pgid']}" if run["pgid"] else f"pid {run['pid']}"


def _duration(seconds: float | None) -> str | None:
    return None if seconds is None else format_duration(seconds, units=2)
