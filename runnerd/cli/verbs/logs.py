"""runnerctl logs: the output of a run, as it is."""

from __future__ import annotations

from argparse import ArgumentParser

from runnerd.cli.call import DONE, Call
from runnerd.cli.follow import output_until_over
from runnerd.cli.watch import write_out
from runnerd.control.client import quote


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("ref", metavar="RUN", help="its id, a unique prefix of it, or its name")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the run is over")


def run(call: Call) -> int:
    document = call.client.get(f"/v1/runs/{quote(call.args.ref)}")
    run_id = document["id"]  # a name may mean another run by the time we have to ask again
    if call.args.follow:
        blocks = output_until_over(call.client, run_id)
    else:
        blocks = call.client.stream(f"/v1/runs/{quote(run_id)}/logs")
    if call.console.json:
        text = b"".join(blocks).decode(errors="replace")
        call.console.document({"id": run_id, "name": document["name"], "output": text})
        return DONE
    for block in blocks:
        write_out(block)
    return DONE
