"""runnerctl execute: start one existing flow run on this host now."""

from __future__ import annotations

from argparse import ArgumentParser

from runnerd.cli.call import DONE, Call
from runnerd.cli.text import clean
from runnerd.cli.watch import follow_run


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("flow_run_id", metavar="FLOW_RUN_ID", help="the flow run's id in Prefect")
    parser.add_argument("--again", action="store_true", help="run it also if it is Completed (default: refuse that)")
    parser.add_argument("--watch", action="store_true", help="follow the run to its end; exit 0 only if it completes")


def run(call: Call) -> int:
    again = {"again": True} if call.args.again else {}  # an older daemon does not know it
    started = call.client.post("/v1/execute", {"flow_run_id": call.args.flow_run_id, **again})
    if call.args.watch:
        return follow_run(call, started)
    if call.console.json:
        call.console.print_document(started)
    else:
        call.console.print_line(f"executing run {clean(started['name'])} ({started['id']})")
    return DONE
