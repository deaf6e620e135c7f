"""runnerctl reload: have runnerd read the configuration again, and print what changed."""

from __future__ import annotations

import os
import time
from argparse import ArgumentParser
from collections.abc import Iterator

from runnerd.cli.call import DONE, FAILED, Call
from runnerd.cli.console import Console
from runnerd.cli.tables import format_problem
from runnerd.cli.text import clean
from runnerd.control.client import Json

RELOAD_TIMEOUT_S = 600.0  # a reload starts the interpreter of each changed deployment
QUIET_S = 0.5  # a directory that has not changed for this long is complete


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--wait", action="store_true", help="accepted for ExecReload=; reload always waits")
    parser.add_argument(
        "--inspect", action="store_true", help="inspect all flows again (those for which something has changed)"
    )
    parser.add_argument(
        "--settled",
        metavar="DIR",
        help=f"wait until DIR is unchanged for {QUIET_S:g} s; repeat if it changes during the reload (reload at once)",
    )


def run(call: Call) -> int:
    directory = call.args.settled
    if directory is None:
        return _reload(call)
    while True:
        # systemd's path unit does not see changes while this command runs, so they are found by comparing.
        loaded = _wait_until_quiet(directory)
        status = _reload(call)
        if _list_stamps(directory) == loaded:
            return status


def _wait_until_quiet(directory: str) -> list[tuple[str, int, int]]:
    seen = _list_stamps(directory)
    while True:
        time.sleep(QUIET_S)
        now = _list_stamps(directory)
        if now == seen:
            return now
        seen = now


def _list_stamps(directory: str) -> list[tuple[str, int, int]]:
    """List path, modification time (ns) and inode of every file below `directory`."""
    return sorted(_iterate_stamps(directory))


def _iterate_stamps(directory: str) -> Iterator[tuple[str, int, int]]:
    for place, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(place, name)
            try:
                about = os.lstat(path)
            except OSError:
                continue  # removed since the listing; the next listing differs
            yield path, about.st_mtime_ns, about.st_ino


def _reload(call: Call) -> int:
    body = {"inspect": True} if call.args.inspect else None  # an older daemon refuses a member that it does not know
    result = call.client.post("/v1/reload", body, timeout_s=RELOAD_TIMEOUT_S)
    if call.console.json:
        call.console.print_document(result)
        return DONE if result["ok"] else FAILED
    applied = result.get("applied", True)  # an older daemon does not say
    if applied:
        _print_changes(call.console, result)
    for problem in result["problems"]:
        call.console.print_remark(format_problem(problem))
    if not applied:
        call.console.print_remark(
            "runnerctl: nothing of the configuration was applied; the last good configuration stays in force"
        )
    elif not result["ok"]:
        call.console.print_remark(
            "runnerctl: the configuration is in force, except for what has a problem: of that, the last good version"
            " stays in force where there is one"
        )
    return DONE if result["ok"] else FAILED


def _print_changes(console: Console, result: Json) -> None:
    for change in result.get("settings", ()):
        values = f"{_format_value(change['old'])} -> {_format_value(change['new'])}"
        when = ", at a restart of runnerd" if change["restart"] else ""
        console.print_line(f"changed  {clean(change['key'])}: {values}{when}")
    for word in ("added", "changed", "removed"):
        for name in [*result[word], *(f"pool {name}" for name in result.get("pools", {}).get(word, ()))]:
            console.print_line(f"{word:<8} {clean(name)}")
    console.print_line(f"{result['unchanged']} unchanged")


def _format_value(value: Json) -> str:
    if value is None:
        return "unset"
    return clean(", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value))
