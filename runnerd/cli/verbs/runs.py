"""runnerctl runs: list the runs on this host, with --all also those that have ended."""

from __future__ import annotations

from argparse import ArgumentParser

from runnerd.cli.call import DONE, Call
from runnerd.cli.tables import print_history, print_runs


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--state", metavar="S", help="list only runs in this phase or state in Prefect (any)")
    parser.add_argument("--deployment", metavar="D", help="list only runs of this deployment (any)")
    parser.add_argument("--all", action="store_true", help="also list runs that have ended")


def run(call: Call) -> int:
    args = call.args
    query = {"state": args.state, "deployment": args.deployment, "history": "1" if args.all else None}
    runs = call.client.get("/v1/runs", {name: value for name, value in query.items() if value})
    if call.console.json:
        call.console.document(runs)
    elif not runs:
        call.console.remark("no runs" if args.all else "no runs; use --all to list also runs that have ended")
    elif args.all:
        print_history(call.console, runs)
    else:
        print_runs(call.console, runs)
    return DONE
