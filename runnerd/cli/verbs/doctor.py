"""runnerctl doctor: find problems of this host; without a daemon by checks that runnerctl makes itself."""

from __future__ import annotations

import os
import queue
import threading
import time
from argparse import ArgumentParser
from collections.abc import Sequence

from runnerd.cli.call import DONE, FAILED, Call
from runnerd.cli.console import Console
from runnerd.cli.text import clean, format_count
from runnerd.control.client import ControlClient, Json
from runnerd.core.errors import ControlError
from runnerd.core.units import format_duration

_ANSWER_TIMEOUT_S = 60.0  # of each receive; the daemon gives its slowest check twenty seconds, and may be busy
_ASK_LIMIT_S = 120.0  # of the whole question
# A daemon that hangs is found within 7 s, and the checks without it take 3 s more: all of it is to take about 10 s.
_PROBE_EVERY_S = 3.0
_PROBE_TIMEOUT_S = 4.0
_LOCAL_LIMIT_S = 3.0
_MARK_WIDTH, _NAME_WIDTH = len("warning"), 24  # a longer name, of an interpreter, shifts only its own line
_STYLES = {"ok": "green", "warning": "yellow", "error": "red", "unknown": "yellow"}


def add_arguments(parser: ArgumentParser) -> None:
    del parser  # no arguments


def run(call: Call) -> int:
    found = ask_daemon(call.client.socket_path)
    if isinstance(found, ControlError):
        if found.status == 403:
            raise found
        found = _check_without_daemon(call.client, found)
    if call.console.json:
        call.console.print_document(found)
    else:
        print_checks(call.console, found["checks"])
    return DONE if found["ok"] else FAILED


def ask_daemon(socket_path: str, *, limit_s: float = _ASK_LIMIT_S) -> Json | ControlError:
    """Return what the daemon's doctor found, or why there is no answer within `limit_s`.

    The doctor may take its time; a daemon that does not say in between whether it is well hangs.
    """
    answers: queue.SimpleQueue[Json | ControlError] = queue.SimpleQueue()

    def examine() -> None:
        try:
            answers.put(ControlClient(socket_path, timeout_s=_ANSWER_TIMEOUT_S).get("/v1/doctor"))
        except ControlError as error:
            answers.put(error)
        except Exception as error:  # without any answer the loop below would wait for its whole limit
            words = f"cannot read the answer of runnerd: {type(error).__name__}: {error}"
            answers.put(ControlError(words, status=502))

    threading.Thread(target=examine, daemon=True).start()
    prober = ControlClient(socket_path, timeout_s=_PROBE_TIMEOUT_S)
    give_up_at = time.monotonic() + limit_s
    while (left_s := give_up_at - time.monotonic()) > 0:
        try:
            return answers.get(timeout=min(_PROBE_EVERY_S, left_s))
        except queue.Empty:
            pass
        try:
            prober.get("/v1/health")
        except ControlError as error:
            if error.status == 504 and answers.empty():
                return error
    return ControlError(f"there is no answer within {format_duration(limit_s)}", status=502)


def _check_without_daemon(client: ControlClient, error: ControlError) -> Json:
    from runnerd.cli.local_checks import run_local_checks  # not at the top, because it is slow to load
    from runnerd.doctor.checks import document

    hangs = {"limit_s": _LOCAL_LIMIT_S} if error.status == 504 else {}
    return document(run_local_checks(os.environ, error=error, socket_path=client.socket_path, **hangs))


def print_checks(console: Console, checks: Sequence[dict[str, str]]) -> None:
    marks = _MARK_WIDTH
    names = max((len(check["name"]) for check in checks if len(check["name"]) <= _NAME_WIDTH), default=0)
    for check in checks:
        mark = console.paint(f"{clean(check['state']):<{marks}}", _STYLES.get(check["state"]))
        console.print_line(f"{mark}  {clean(check['name']):<{names}}  {clean(check['detail'])}")
        if check["state"] != "ok" and check["remedy"]:
            console.print_line(f"{'':<{marks}}  -> {clean(check['remedy'])}")
    states = [check["state"] for check in checks]
    errors, warnings, unknown = (states.count(state) for state in ("error", "warning", "unknown"))
    parts = [format_count(errors, "error")] if errors else []
    parts += [format_count(warnings, "warning")] if warnings else []
    parts += [f"{unknown} unknown"] if unknown else []
    verdict = (
        f"{', '.join(parts)} in {format_count(len(checks), 'check')}"
        if parts
        else f"no problem in {format_count(len(checks), 'check')}"
    )
    console.print_line(console.paint(verdict, "red" if errors else "yellow" if parts else "green"))
