"""runnerctl execute: run one given flow run here and now."""

from __future__ import annotations

from argparse import ArgumentParser

from runnerd.cli.call import DONE, Call
from runnerd.cli.text import clean
from runnerd.cli.watch import watch


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("flow_run_id", metavar="FLOW_RUN_ID")
    parser.add_argument("--watch", action="store_true", help="follow it, and exit 0 only if it completes")


def run(call: Call) -> int:
    started = call.client.post("/v1/execute", {"flow_run_id": call.args.flow_run_id})
    if call.args.watch:
        return watch(call, started)
    if call.console.json:
        call.console.document(started)
    else:
        call.console.line(f"executing run {clean(started['name'])} ({started['id']})")
    return DONE
