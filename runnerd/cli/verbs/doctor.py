"""runnerctl doctor: what is wrong with this host, and what to do about it; by ourselves where no daemon answers."""

from __future__ import annotations

import os
from argparse import ArgumentParser
from collections.abc import Sequence

from runnerd.cli.call import DONE, FAILED, Call
from runnerd.cli.console import Console
from runnerd.cli.text import clean, count
from runnerd.control.client import ControlClient
from runnerd.core.errors import ControlError

_PATIENCE_S = 60.0  # the daemon gives its slowest look twenty seconds, and may be busy
_MARK, _NAME = len("warning"), 24  # a longer name, of an interpreter, moves its own line only
_STYLES = {"ok": "green", "warning": "yellow", "error": "red", "unknown": "yellow"}


def arguments(parser: ArgumentParser) -> None:
    del parser  # none of its own


def run(call: Call) -> int:
    client = ControlClient(call.client.socket_path, timeout_s=_PATIENCE_S)
    try:
        found = client.get("/v1/doctor")
    except ControlError as error:
        if error.status == 403:
            raise
        found = _by_ourselves(client, error)
    if call.console.json:
        call.console.document(found)
    else:
        show(call.console, found["checks"])
    return DONE if found["ok"] else FAILED


def _by_ourselves(client: ControlClient, error: ControlError) -> dict[str, object]:
    from runnerd.cli.local_checks import local_checks  # only where it is needed: it loads the configuration's modules
    from runnerd.doctor.checks import document

    return document(local_checks(os.environ, error=error, socket_path=client.socket_path))


def show(console: Console, checks: Sequence[dict[str, str]]) -> None:
    marks, names = _MARK, max((len(check["name"]) for check in checks if len(check["name"]) <= _NAME), default=0)
    for check in checks:
        mark = console.paint(f"{clean(check['state']):<{marks}}", _STYLES.get(check["state"]))
        console.line(f"{mark}  {clean(check['name']):<{names}}  {clean(check['detail'])}")
        if check["state"] != "ok" and check["remedy"]:
            console.line(f"{'':<{marks}}  -> {clean(check['remedy'])}")
    states = [check["state"] for check in checks]
    errors, warnings, unknown = (states.count(state) for state in ("error", "warning", "unknown"))
    parts = [count(errors, "error")] if errors else []
    parts += [count(warnings, "warning")] if warnings else []
    parts += [f"{unknown} unknown"] if unknown else []
    verdict = (
        f"{', '.join(parts)} in {count(len(checks), 'check')}"
        if parts
        else f"all is well in {count(len(checks), 'check')}"
    )
    console.line(console.paint(verdict, "red" if errors else "yellow" if parts else "green"))
