"""runnerctl pause and resume: pause and resume a deployment."""

from __future__ import annotations

from argparse import ArgumentParser

from runnerd.cli.call import DONE, Call
from runnerd.cli.text import clean, format_count
from runnerd.control.client import quote


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("deployment", metavar="DEPLOYMENT", help="the deployment's name, or flow/name")


def run(call: Call) -> int:
    verb = call.args.verb
    its = call.client.post(f"/v1/deployments/{quote(call.args.deployment)}/{verb}")
    if call.console.json:
        call.console.print_document(its)
    elif verb == "pause":
        running = f"; {format_count(its['running'], 'run')} of it not affected" if its["running"] else ""
        call.console.print_line(f"{clean(its['name'])} is paused{running}")
    else:
        at = its["next_run_at"]
        known = f"next run {call.console.when_in_full(at)}" if at else "runnerctl deployments shows its next run soon"
        call.console.print_line(f"{clean(its['name'])} is resumed; {known}")
    return DONE
