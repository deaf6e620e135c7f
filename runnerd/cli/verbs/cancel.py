"""runnerctl cancel: cancel runs, and with --wait wait for their end."""

from __future__ import annotations

import time
from argparse import ArgumentParser

from runnerd.cli.call import DONE, Call, UsageError
from runnerd.cli.follow import wait_until_done
from runnerd.cli.text import clean, format_api_state, format_count, format_verdict
from runnerd.control.client import Json

UNSTARTED = "cancelled before it started"  # the daemon's words for a run that it took off offer


def add_arguments(parser: ArgumentParser) -> None:
    named = "the run's id, a unique prefix of the id, or its name"
    parser.add_argument("refs", nargs="*", metavar="RUN", help=named)
    parser.add_argument("--deployment", metavar="D", help="cancel every run of this deployment")
    parser.add_argument("--all", action="store_true", help="cancel every run on this host")
    parser.add_argument("--now", action="store_true", help="send SIGKILL at once (default: the stop signal first)")
    parser.add_argument("--wait", action="store_true", help="wait until each run has ended")


def run(call: Call) -> int:
    asked = call.client.post("/v1/cancel", _body(call))["runs"]
    already = {its["id"] for its in asked if its["phase"] == "done"}
    ended = []
    for its in asked:
        if call.args.wait and its["id"] not in already:
            its = wait_until_done(call.client, its["id"])
        ended.append(its)
        if not call.console.json:
            call.console.print_line(_words(its, already=its["id"] in already))
    if call.console.json:
        call.console.print_document({"runs": ended})
    elif not asked:
        call.console.print_line(
            "nothing is running" if call.args.all else f"{call.args.deployment}: nothing is running"
        )
    elif not call.args.wait and len(already) < len(asked):
        cancelling = format_count(len(asked) - len(already), "run")
        call.console.print_remark(f"cancelling {cancelling}; use --wait to wait for the end")
    return DONE


def _body(call: Call) -> Json:
    args = call.args
    if bool(args.refs) + (args.deployment is not None) + args.all != 1:
        raise UsageError("cannot cancel: no runs named, or in two ways; give one of RUN..., --deployment D and --all")
    if args.refs:
        return {"runs": args.refs, "now": args.now}
    if args.all:
        return {"all": True, "now": args.now}
    return {"deployment": args.deployment, "now": args.now}


def _words(its: Json, *, already: bool) -> str:
    named = f"{clean(its['name'])} ({its['id']})"
    if (its["exit"] or {}).get("words") == UNSTARTED:
        return f"{named}: {UNSTARTED}"
    if already:
        return f"{named}: already {format_api_state(its) or 'over'}"
    if its["phase"] == "done":
        return f"{named}: {format_verdict(its, time.time())}"
    return f"{named}: cancelling"
