"""Follows one run to its end: the run's output on standard output, its phases on standard error.

The exit status says whether the run completed.
"""

from __future__ import annotations

import os
import threading
import time

from runnerd.cli.call import DONE, FAILED, INTERRUPTED, Call
from runnerd.cli.console import Console
from runnerd.cli.follow import follow_changes, follow_output
from runnerd.cli.text import format_phase, format_verdict
from runnerd.control.client import ControlClient, Json
from runnerd.core.errors import ControlError

STDOUT = 1


def follow_run(call: Call, run: Json) -> int:
    """Follow the run to its end and return the exit status. Ctrl-C ends runnerctl, not the run. Raises ControlError."""
    try:
        run = _follow(call, run)
    except KeyboardInterrupt:
        short = run["id"][:8]
        call.console.print_remark(
            f"the run continues; follow: runnerctl logs -f {short}; cancel: runnerctl cancel {short}"
        )
        return INTERRUPTED
    if call.console.json:
        call.console.print_document(run)
    else:
        call.console.print_remark(f"{run['name']}: {format_verdict(run, time.time())}")
    return DONE if str(run["api_state"]).upper() == "COMPLETED" else FAILED


def write_output(block: bytes) -> None:
    """Write to standard output without Python's buffer: a thread that holds the buffer's lock hangs Python at exit."""
    view = memoryview(block)
    while view:
        view = view[os.write(STDOUT, view) :]


def explain_wait(status: Json) -> str | None:
    """Say why the host does not start a run at once, and what ends the wait; None when nothing prevents the start."""
    if status["draining"]:
        if (status.get("drain") or {}).get("stopping"):
            return "waiting: this host is stopping; the next runnerd starts the run"
        return "waiting: this host is draining; runnerctl undrain ends the drain"
    limit = status["limits"]["runs"]
    if limit["used"] >= limit["max"]:
        return f"waiting for another run to end: limits.runs is {limit['max']}"
    if status["api"]["state"] != "ok":
        return f"waiting for the API: it is {status['api']['state']}"
    return None


def _follow(call: Call, run: Json) -> Json:
    console, client = call.console, call.client
    console.print_remark(f"{run['name']}: run {run['id']} of {run['deployment'] or 'no deployment'}")
    if run["phase"] is None and (reason := explain_wait(client.get("/v1/status"))):
        console.print_remark(f"{run['name']}: {reason}")
    copying: threading.Thread | None = None
    last = ""
    document = run
    for document in follow_changes(client, run["id"]):
        if copying is None and not console.json and document["phase"] not in (None, "claiming"):
            copying = threading.Thread(target=_copy_output, args=(client, run["id"], console), daemon=True)
            copying.start()
        if (words := format_phase(document)) not in (last, "done"):
            console.print_remark(f"{document['name']}: {words}")
            last = words
    if copying is not None:
        copying.join()  # the stream ends with the run's process; the verdict comes after all of the output
    return document


def _copy_output(client: ControlClient, run_id: str, console: Console) -> None:
    try:
        for block in follow_output(client, run_id):
            write_output(block)
    except (ControlError, OSError) as error:
        console.print_remark(f"runnerctl: cannot show the output: {error}")
