"""runnerctl logs: print the output of a run, byte for byte, and on standard error what of it is not printed."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence

from runnerd.cli.call import DONE, Call
from runnerd.cli.command import make_number_parser
from runnerd.cli.follow import follow_output
from runnerd.cli.watch import write_output
from runnerd.control.client import ControlClient, Json, quote
from runnerd.core.errors import ControlError
from runnerd.core.numbers import ATTEMPT_MAX
from runnerd.core.ranges import format_ranges

_NOT_STARTED = ("claiming", "starting")  # phases


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("ref", metavar="RUN", help="the run's id, a unique prefix of the id, or its name")
    parser.add_argument("-f", "--follow", action="store_true", help="print new output until the run ends")
    about = "print the output of this attempt only (default: the last one); retries inside the process are no attempts"
    parser.add_argument("--attempt", metavar="N", type=make_number_parser(least=1, most=ATTEMPT_MAX), help=about)


def run(call: Call) -> int:
    document = call.client.get(f"/v1/runs/{quote(call.args.ref)}")
    here = document.get("here", True)  # of a run that is not here, the request for its output says so
    if document["phase"] is None and here:
        wait = f"it waits: {document['waiting']}" if document.get("waiting") else "it is due, and not claimed yet"
        call.console.print_remark(f"{document['name']} has not started: {wait}")
    run_id, attempt = document["id"], call.args.attempt  # from here on by id: a later run may have the same name
    if call.args.follow:
        blocks = follow_output(call.client, run_id, attempt=attempt)
    else:
        query = {"attempt": str(attempt)} if attempt else None
        blocks = call.client.stream(f"/v1/runs/{quote(run_id)}/logs", query)
    attempts = _read_attempts(call.client, run_id) if here else []
    if call.console.json:
        text = b"".join(blocks).decode(errors="replace")
        call.console.print_document({"id": run_id, "name": document["name"], "output": text, "attempts": attempts})
        return DONE
    before, after = describe_gaps(document, attempts, asked=attempt)
    if call.args.follow:  # what comes after the output may never come
        before, after = [*before, *after], []
    for remark in before:
        call.console.print_remark(remark)
    for block in blocks:
        write_output(block)
    for remark in after:
        call.console.print_remark(remark)
    return DONE


def _read_attempts(client: ControlClient, run_id: str) -> list[Json]:
    """Read what output there is; nothing from an older daemon, and where its disk does not answer."""
    try:
        found: list[Json] = client.get(f"/v1/runs/{quote(run_id)}/attempts")
    except ControlError as error:
        if error.status not in (404, 500):
            raise
        return []
    return found


def describe_gaps(run: Json, attempts: Sequence[Json], *, asked: int | None) -> tuple[list[str], list[str]]:
    """Say what of the run's output is not printed: remarks for before the output, and for behind it."""
    shown = next((its for its in attempts if (its["attempt"] == asked if asked else its["shown"])), None)
    if shown is None:
        return ([] if asked else _describe_unshown(run, attempts)), []
    number, last = shown["attempt"], run.get("attempt") or 1
    before, after = [], []
    if shown["cut"]:
        of = f" of attempt {number}" if last > 1 else ""
        before.append(f"the oldest part of the output{of} is missing: it was removed for run.output_max")
    if asked is None and number < last:
        after.append(f"this is the output of attempt {number}: attempt {last} has not started")
    if others := [its["attempt"] for its in attempts if its is not shown]:
        short = run["id"][:8]
        this = f"this is attempt {number}; " if not after else ""
        after.append(
            f"{this}there is also output of attempt {format_ranges(others)}: runnerctl logs {short} --attempt N"
        )
    return before, after


def _describe_unshown(run: Json, attempts: Sequence[Json]) -> list[str]:
    """Say why nothing is printed although earlier attempts have output."""
    numbers, last = [its["attempt"] for its in attempts], run.get("attempt") or 1
    if not numbers:
        return []
    remarks = []
    if run["phase"] in _NOT_STARTED and last not in numbers:
        wait = f": it waits: {run['waiting']}" if run.get("waiting") else ""
        remarks.append(f"attempt {last} has not started{wait}")
    look = f"runnerctl logs {run['id'][:8]} --attempt {numbers[-1]}"
    return [*remarks, f"there is output of attempt {format_ranges(numbers)}: {look}"]
