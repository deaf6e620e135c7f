"""runnerctl retry: schedule a run that has ended again, with the same id, due now."""

from __future__ import annotations

from argparse import ArgumentParser

from runnerd.cli.call import DONE, Call
from runnerd.cli.text import clean
from runnerd.control.client import quote


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("ref", metavar="RUN", help="the run's id, a prefix of it, or its name; of another host, its id")


def run(call: Call) -> int:
    scheduled = call.client.post(f"/v1/runs/{quote(call.args.ref)}/retry")
    if call.console.json:
        call.console.print_document(scheduled)
    else:
        call.console.print_line(f"retrying run {clean(scheduled['name'])} ({scheduled['id']})")
    return DONE
