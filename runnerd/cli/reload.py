"""runnerctl reload: have the configuration read again, and say what came of it."""

from __future__ import annotations

from argparse import ArgumentParser

from runnerd.cli.call import DONE, FAILED, Call
from runnerd.cli.show import problem_words
from runnerd.cli.text import clean

RELOAD_S = 600.0  # it starts each changed deployment's interpreter once


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--wait", action="store_true", help="accepted for ExecReload=; it always waits")


def run(call: Call) -> int:
    result = call.client.post("/v1/reload", timeout_s=RELOAD_S)
    if call.console.json:
        call.console.document(result)
        return DONE if result["ok"] else FAILED
    for word in ("added", "changed", "removed"):
        for name in result[word]:
            call.console.line(f"{word:<8} {clean(name)}")
    call.console.line(f"{result['unchanged']} unchanged")
    for problem in result["problems"]:
        call.console.remark(problem_words(problem))
    if not result["ok"]:
        call.console.remark("runnerctl: the configuration has problems; what is good of it is in force")
    return DONE if result["ok"] else FAILED
