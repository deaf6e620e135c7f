"""runnerctl doctor: find problems of this host; without a daemon by checks that runnerctl makes itself."""

from __future__ import annotations

import os
from argparse import ArgumentParser
from collections.abc import Sequence

from runnerd.cli.call import DONE, FAILED, Call
from runnerd.cli.console import Console
from runnerd.cli.text import clean, format_count
from runnerd.control.client import ControlClient
from runnerd.core.errors import ControlError

_ANSWER_TIMEOUT_S = 60.0  # the daemon gives its slowest check twenty seconds, and may be busy
_MARK_WIDTH, _NAME_WIDTH = len("warning"), 24  # a longer name, of an interpreter, shifts only its own line
_STYLES = {"ok": "green", "warning": "yellow", "error": "red", "unknown": "yellow"}


def add_arguments(parser: ArgumentParser) -> None:
    del parser  # no arguments


def run(call: Call) -> int:
    client = ControlClient(call.client.socket_path, timeout_s=_ANSWER_TIMEOUT_S)
    try:
        found = client.get("/v1/doctor")
    except ControlError as error:
        if error.status == 403:
            raise
        found = _check_without_daemon(client, error)
    if call.console.json:
        call.console.document(found)
    else:
        print_checks(call.console, found["checks"])
    return DONE if found["ok"] else FAILED


def _check_without_daemon(client: ControlClient, error: ControlError) -> dict[str, object]:
    from runnerd.cli.local_checks import run_local_checks  # not at the top, because it is slow to load
    from runnerd.doctor.checks import document

    return document(run_local_checks(os.environ, error=error, socket_path=client.socket_path))


def print_checks(console: Console, checks: Sequence[dict[str, str]]) -> None:
    marks = _MARK_WIDTH
    names = max((len(check["name"]) for check in checks if len(check["name"]) <= _NAME_WIDTH), default=0)
    for check in checks:
        mark = console.paint(f"{clean(check['state']):<{marks}}", _STYLES.get(check["state"]))
        console.line(f"{mark}  {clean(check['name']):<{names}}  {clean(check['detail'])}")
        if check["state"] != "ok" and check["remedy"]:
            console.line(f"{'':<{marks}}  -> {clean(check['remedy'])}")
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
    console.line(console.paint(verdict, "red" if errors else "yellow" if parts else "green"))
