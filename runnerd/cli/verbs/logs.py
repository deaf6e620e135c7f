"""runnerctl logs: print the output of a run, byte for byte."""

from __future__ import annotations

from argparse import ArgumentParser

from runnerd.cli.call import DONE, Call
from runnerd.cli.follow import follow_output
from runnerd.cli.watch import write_output
from runnerd.control.client import quote


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("ref", metavar="RUN", help="the run's id, a unique prefix of the id, or its name")
    parser.add_argument("-f", "--follow", action="store_true", help="print new output until the run ends")


def run(call: Call) -> int:
    document = call.client.get(f"/v1/runs/{quote(call.args.ref)}")
    if document["phase"] is None:
        wait = f"it waits: {document['waiting']}" if document.get("waiting") else "it is due, and not claimed yet"
        call.console.print_remark(f"{document['name']} has not started: {wait}")
    run_id = document["id"]  # from here on by id: a later run may have the same name
    if call.args.follow:
        blocks = follow_output(call.client, run_id)
    else:
        blocks = call.client.stream(f"/v1/runs/{quote(run_id)}/logs")
    if call.console.json:
        text = b"".join(blocks).decode(errors="replace")
        call.console.print_document({"id": run_id, "name": document["name"], "output": text})
        return DONE
    for block in blocks:
        write_output(block)
    return DONE
