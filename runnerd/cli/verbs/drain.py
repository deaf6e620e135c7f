"""runnerctl drain and undrain: stop and resume claiming on this host."""

from __future__ import annotations

from argparse import ArgumentParser

from runnerd.cli.call import DONE, Call, Usage
from runnerd.cli.text import count, seconds_of


def arguments(parser: ArgumentParser) -> None:
    if parser.prog.endswith(" drain"):
        parser.add_argument("--timeout", metavar="T", help="end what still runs after this long: 90, 10s, 5m, 2h")
        parser.add_argument("--reason", metavar="R", help="shown in status")


def run(call: Call) -> int:
    if call.args.verb == "undrain":
        status = call.client.post("/v1/undrain")
    else:
        status = call.client.post("/v1/drain", _body(call))
    if call.console.json:
        call.console.document(status)
    elif call.args.verb == "undrain":
        call.console.line("claiming again")
    else:
        running = len(status["runs"])
        going_on = f"{count(running, 'run')} still here" if running else "nothing runs here"
        call.console.line(f"draining: no new runs are claimed; {going_on}; runnerctl undrain ends it")
    return DONE


def _body(call: Call) -> dict[str, float | str | None]:
    try:
        timeout_s = None if call.args.timeout is None else seconds_of(call.args.timeout)
    except ValueError as error:
        raise Usage(f"--timeout: {error}") from None
    return {"timeout_s": timeout_s, "reason": call.args.reason}
