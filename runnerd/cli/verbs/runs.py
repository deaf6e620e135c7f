"""runnerctl runs: list the runs on this host, with --all also those that have ended."""

from __future__ import annotations

from argparse import ArgumentParser

from runnerd.cli.call import DONE, Call, UsageError
from runnerd.cli.tables import print_history, print_runs

_PHASES = "claiming starting running stopping killing reporting done"
_TYPES = "scheduled pending running completed failed cancelled crashed paused cancelling"
_NAMES = "late timedout awaitingretry awaitingconcurrencyslot retrying suspended resuming"
_STATES = tuple(dict.fromkeys(f"waiting {_PHASES} {_TYPES} {_NAMES}".split()))


def add_arguments(parser: ArgumentParser) -> None:
    about = "list only runs in this phase or state in Prefect, or those that are waiting (default: any)"
    parser.add_argument("--state", metavar="S", help=about)
    parser.add_argument("--deployment", metavar="D", help="list only runs of this deployment (default: any)")
    parser.add_argument("--all", action="store_true", help="also list runs that have ended")


def run(call: Call) -> int:
    args = call.args
    query = {"state": args.state, "deployment": args.deployment, "history": "1" if args.all else None}
    runs = call.client.get("/v1/runs", {name: value for name, value in query.items() if value})
    if not runs and args.state and args.state.lower() not in _STATES:  # a flow may name a state as it likes
        raise UsageError(f"cannot list runs in state {args.state!r}: no run has it; known are {', '.join(_STATES)}")
    if call.console.json:
        call.console.print_document(runs)
    elif not runs:
        call.console.print_remark("no runs" if args.all else "no runs; use --all to list also runs that have ended")
    elif args.all:
        print_history(call.console, runs)
    else:
        print_runs(call.console, runs)
    return DONE
