"""runnerctl reload: have the configuration read again, and say what came of it."""

from __future__ import annotations

import os
import time
from argparse import ArgumentParser
from collections.abc import Iterator

from runnerd.cli.call import DONE, FAILED, Call
from runnerd.cli.tables import problem_words
from runnerd.cli.text import clean

RELOAD_S = 600.0  # it starts each changed deployment's interpreter once
QUIET_S = 0.5  # files that have not changed for so long are taken as written


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--wait", action="store_true", help="accepted for ExecReload=; it always waits")
    parser.add_argument(
        "--settled",
        metavar="DIR",
        help="wait until nobody writes there any more, and repeat it for what came meanwhile",
    )


def run(call: Call) -> int:
    directory = call.args.settled
    if directory is None:
        return _reload(call)
    while True:
        # systemd does not watch while we run: what changes during a reload is found by looking again.
        taken = _settle(directory)
        status = _reload(call)
        if _stamps(directory) == taken:
            return status


def _settle(directory: str) -> list[tuple[str, int, int]]:
    seen = _stamps(directory)
    while True:
        time.sleep(QUIET_S)
        now = _stamps(directory)
        if now == seen:
            return now
        seen = now


def _stamps(directory: str) -> list[tuple[str, int, int]]:
    return sorted(_files(directory))


def _files(directory: str) -> Iterator[tuple[str, int, int]]:
    for place, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(place, name)
            try:
                about = os.lstat(path)
            except OSError:
                continue  # removed between the listing and now; the next look sees it
            yield path, about.st_mtime_ns, about.st_ino


def _reload(call: Call) -> int:
    result = call.client.post("/v1/reload", timeout_s=RELOAD_S)
    if call.console.json:
        call.console.document(result)
        return DONE if result["ok"] else FAILED
    for word in ("added", "changed", "removed"):
        for name in [*result[word], *(f"pool {name}" for name in result.get("pools", {}).get(word, ()))]:
            call.console.line(f"{word:<8} {clean(name)}")
    call.console.line(f"{result['unchanged']} unchanged")
    for problem in result["problems"]:
        call.console.remark(problem_words(problem))
    if not result["ok"]:
        call.console.remark("runnerctl: the configuration has problems; what is good of it is in force")
    return DONE if result["ok"] else FAILED
