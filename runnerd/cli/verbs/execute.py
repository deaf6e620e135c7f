"""runnerctl execute: start one existing flow run on this host now."""

from __future__ import annotations

import os
from argparse import ArgumentParser

from runnerd.cli.call import DONE, Call, UsageError
from runnerd.cli.text import clean
from runnerd.cli.watch import follow_run


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("flow_run_id", metavar="FLOW_RUN_ID", help="the flow run's id in Prefect")
    parser.add_argument(
        "--entrypoint",
        metavar="FILE.py:FLOW",
        help="run this code, as run.user of the host (default: that of the run's deployment)",
    )
    parser.add_argument("--again", action="store_true", help="run it also if it is Completed (default: refuse that)")
    parser.add_argument("--watch", action="store_true", help="follow the run to its end; exit 0 only if it completes")


def run(call: Call) -> int:
    # An older daemon does not know what is not given.
    more: dict[str, bool | str] = {"again": True} if call.args.again else {}
    if call.args.entrypoint is not None:
        more["entrypoint"] = make_absolute(call.args.entrypoint)
    started = call.client.post("/v1/execute", {"flow_run_id": call.args.flow_run_id, **more})
    if call.args.watch:
        return follow_run(call, started)
    if call.console.json:
        call.console.print_document(started)
    else:
        call.console.print_line(f"executing run {clean(started['name'])} ({started['id']})")
    return DONE


def make_absolute(entrypoint: str) -> str:
    """Make the path of an entrypoint absolute; that of a module stays as it is. Raises UsageError."""
    path, colon, flow = entrypoint.rpartition(":")
    if not path or not flow:
        raise UsageError(f"cannot use --entrypoint {entrypoint!r}: write FILE.py:FLOW, or MODULE:FLOW")
    is_file = "/" in path or path.endswith(".py")
    return f"{os.path.abspath(path)}{colon}{flow}" if is_file else entrypoint
