"""runnerctl drain and undrain: stop and resume claiming on this host."""

from __future__ import annotations

import math
from argparse import ArgumentParser

from runnerd.cli.call import DONE, Call, UsageError
from runnerd.cli.text import format_count
from runnerd.core.units import parse_duration


def add_arguments(parser: ArgumentParser) -> None:
    if parser.prog.endswith(" drain"):
        parser.add_argument(
            "--timeout",
            metavar="T",
            help="stop the runs that still run after T: 90, 10s, 5m, 2h (default: never; of a second drain: as before)",
        )
        parser.add_argument(
            "--reason",
            metavar="R",
            help="show this reason in runnerctl status (default: none; of a second drain: as before)",
        )


def run(call: Call) -> int:
    if call.args.verb == "undrain":
        status = call.client.post("/v1/undrain")
    else:
        status = call.client.post("/v1/drain", _body(call))
    if call.console.json:
        call.console.print_document(status)
    elif call.args.verb == "undrain":
        call.console.print_line("not draining: runs are claimed again")
    else:
        running = len(status["runs"])
        is_or_are = "is" if running == 1 else "are"
        remaining = f"{format_count(running, 'run')} {is_or_are} still running" if running else "none is running"
        drain = status.get("drain") or {}
        limit = (
            f" and will be stopped at {call.console.when_in_full(drain['until'])}"
            if drain.get("until") and running
            else ""
        )
        end = "the host is stopping" if drain.get("stopping") else "runnerctl undrain ends the drain"
        call.console.print_line(f"draining: no new runs are claimed, {remaining}{limit}; {end}")
    return DONE


def _body(call: Call) -> dict[str, float | str | None]:
    try:
        timeout_s = math.inf if call.args.timeout is None else parse_duration(call.args.timeout)
    except ValueError as error:
        raise UsageError(f"--timeout: {error}") from None
    return {"timeout_s": None if math.isinf(timeout_s) else timeout_s, "reason": call.args.reason}
