"""runnerctl cancel: have runs end, and wait for it if asked to."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from typing import Any

from runnerd.cli.call import DONE, Call, Usage
from runnerd.cli.follow import last_document
from runnerd.cli.text import api_state, clean, count, verdict

Json = Any


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("refs", nargs="*", metavar="RUN", help="its id, a unique prefix of it, or its name")
    parser.add_argument("--deployment", metavar="D", help="every run of this deployment")
    parser.add_argument("--all", action="store_true", help="every run on this host")
    parser.add_argument("--now", action="store_true", help="kill at once instead of asking first")
    parser.add_argument("--wait", action="store_true", help="until each is done")


def run(call: Call) -> int:
    asked = call.client.post("/v1/cancel", _body(call))["runs"]
    already = {its["id"] for its in asked if its["phase"] == "done"}
    ended = []
    for its in asked:
        if call.args.wait and its["id"] not in already:
            its = last_document(call.client, its["id"])
        ended.append(its)
        if not call.console.json:
            call.console.line(_words(its, already=its["id"] in already))
    if call.console.json:
        call.console.document({"runs": ended})
    elif not asked:
        call.console.line("nothing is running" if call.args.all else f"{call.args.deployment}: nothing is running")
    elif not call.args.wait and len(already) < len(asked):
        call.console.remark(f"{count(len(asked) - len(already), 'run')} asked to end; --wait waits for it")
    return DONE


def _body(call: Call) -> Json:
    args = call.args
    if bool(args.refs) + (args.deployment is not None) + args.all != 1:
        raise Usage("name what to cancel: RUN..., --deployment D or --all")
    if args.refs:
        return {"runs": args.refs, "now": args.now}
    if args.all:
        return {"all": True, "now": args.now}
    return {"deployment": args.deployment, "now": args.now}


def _words(its: Json, *, already: bool) -> str:
    named = f"{clean(its['name'])} ({its['id']})"
    if already:
        return f"{named}: already {api_state(its) or 'over'}"
    if its["phase"] == "done":
        return f"{named}: {verdict(its, time.time())}"
    return f"{named}: cancelling"
