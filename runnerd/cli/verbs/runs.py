"""runnerctl runs: the runs here now, or with history."""

from __future__ import annotations

from argparse import ArgumentParser

from runnerd.cli.call import DONE, Call
from runnerd.cli.tables import history_table, runs_table


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--state", metavar="S", help="only those in this phase, or in this state in the API")
    parser.add_argument("--deployment", metavar="D", help="only those of this deployment")
    parser.add_argument("--all", action="store_true", help="those that are over as well")


def run(call: Call) -> int:
    args = call.args
    query = {"state": args.state, "deployment": args.deployment, "history": "1" if args.all else None}
    runs = call.client.get("/v1/runs", {name: value for name, value in query.items() if value})
    if call.console.json:
        call.console.document(runs)
    elif not runs:
        call.console.remark("no runs" if args.all else "no runs here now; --all shows those that are over")
    elif args.all:
        history_table(call.console, runs)
    else:
        runs_table(call.console, runs)
    return DONE
