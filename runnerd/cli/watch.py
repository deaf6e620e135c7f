"""Watching one run: its output to standard output, what happens to it to standard error, its verdict as our status."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from runnerd.cli.call import DONE, FAILED, INTERRUPTED, Call
from runnerd.cli.console import Console
from runnerd.cli.follow import changes_until_done, output_until_over
from runnerd.cli.text import phase, verdict
from runnerd.control.client import ControlClient
from runnerd.core.errors import ControlError

Json = Any
STDOUT = 1


def watch(call: Call, run: Json) -> int:
    """Follow the run to its end. Ctrl-C ends the watching, not the run. Raises ControlError."""
    try:
        run = _follow(call, run)
    except KeyboardInterrupt:
        short = run["id"][:8]
        call.console.remark(f"the run goes on; runnerctl logs -f {short} | runnerctl cancel {short}")
        return INTERRUPTED
    if call.console.json:
        call.console.document(run)
    else:
        call.console.remark(f"{run['name']}: {verdict(run, time.time())}")
    return DONE if str(run["api_state"]).upper() == "COMPLETED" else FAILED


def write_out(block: bytes) -> None:
    """To standard output, past Python's buffer: a thread that holds its lock would hang the interpreter's end."""
    view = memoryview(block)
    while view:
        view = view[os.write(STDOUT, view) :]


def why_it_waits(status: Json) -> str | None:
    """What keeps the host from starting a run at once, and what to do; None when nothing does."""
    if status["draining"]:
        return "this host is draining: the run waits until runnerctl undrain"
    limit = status["limits"]["runs"]
    if limit["used"] >= limit["max"]:
        return f"all {limit['max']} places are taken: the run waits for one"
    if status["api"]["state"] != "ok":
        return f"the API is {status['api']['state']}: the run waits until it is back"
    return None


def _follow(call: Call, run: Json) -> Json:
    console, client = call.console, call.client
    console.remark(f"{run['name']}: run {run['id']} of {run['deployment'] or 'no deployment'}")
    if run["phase"] is None and (reason := why_it_waits(client.get("/v1/status"))):
        console.remark(f"{run['name']}: {reason}")
    output: threading.Thread | None = None
    last = ""
    document = run
    for document in changes_until_done(client, run["id"]):
        if output is None and not console.json and document["phase"] not in (None, "claiming"):
            output = threading.Thread(target=_copy, args=(client, run["id"], console), daemon=True)
            output.start()
        if (words := phase(document)) not in (last, "done"):
            console.remark(f"{document['name']}: {words}")
            last = words
    if output is not None:
        output.join()  # the server ends it with the process; a slow terminal gets all of it before the verdict
    return document


def _copy(client: ControlClient, run_id: str, console: Console) -> None:
    try:
        for block in output_until_over(client, run_id):
            write_out(block)
    except (ControlError, OSError) as error:
        console.remark(f"runnerctl: cannot show the output: {error}")
