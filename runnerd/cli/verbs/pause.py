"""runnerctl pause and resume: stop and resume a deployment's schedules."""

from __future__ import annotations

from argparse import ArgumentParser

from runnerd.cli.call import DONE, Call
from runnerd.cli.text import clean, count
from runnerd.control.client import quote


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("deployment", metavar="DEPLOYMENT", help="its name, or flow/name")


def run(call: Call) -> int:
    verb = call.args.verb
    its = call.client.post(f"/v1/deployments/{quote(call.args.deployment)}/{verb}")
    if call.console.json:
        call.console.document(its)
    elif verb == "pause":
        going_on = f"; {count(its['running'], 'run')} of it go on" if its["running"] else ""
        call.console.line(f"{clean(its['name'])} is paused{going_on}")
    else:
        call.console.line(f"{clean(its['name'])} is resumed; next run {call.console.when_in_full(its['next_run_at'])}")
    return DONE
