"""Changes and deletes work pools and work queues, and asks before a deletion."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from runnerd.cli.call import DONE, Call, UsageError
from runnerd.cli.text import clean
from runnerd.control.client import Json


class PoolChanges(NamedTuple):
    """Changes one pool or queue: `noun` is "work pool" or "work queue", `place` returns its path in the control API."""

    noun: str
    place: Callable[[Call], str]

    def pause(self, call: Call) -> int:
        return self._change(call, "pause", {}, {"paused": True})

    def resume(self, call: Call) -> int:
        return self._change(call, "resume", {}, {"paused": False})

    def set_limit(self, call: Call) -> int:
        return self.update(call, {"concurrency_limit": call.args.limit})

    def clear_limit(self, call: Call) -> int:
        return self.update(call, {"concurrency_limit": None})

    def update(self, call: Call, changes: Json) -> int:
        return self._change(call, "update", changes, changes)

    def delete(self, call: Call, question: Callable[[Json], str]) -> Json | None:
        """Delete the pool or queue and return its last document; None when the user answers no. Raises UsageError."""
        if _must_ask(call) and not _ask(question(call.client.get(self.place(call)))):
            call.console.remark("not deleted")
            return None
        return call.client.post(f"{self.place(call)}/delete")

    def _change(self, call: Call, action: str, body: Json, changes: Mapping[str, Any]) -> int:
        its = call.client.post(f"{self.place(call)}/{action}", body)
        print_result(call, its, f"{self.noun} {clean(its['name'])} {_describe(its, changes)}")
        return DONE


def print_result(call: Call, document: Json, words: str) -> None:
    """Print `document` with --json, else `words`."""
    if call.console.json:
        call.console.document(document)
    else:
        call.console.line(words)


def _describe(its: Json, changes: Mapping[str, Any]) -> str:
    """Describe one change, to follow the name of the pool or queue."""
    if "paused" in changes:
        return "is paused: it delivers no runs" if changes["paused"] else "is resumed: it delivers runs again"
    if "priority" in changes:
        return f"has priority {its['priority']}"
    limit = its["concurrency_limit"]
    return "has no concurrency limit" if limit is None else f"has a concurrency limit of {limit}"


def _must_ask(call: Call) -> bool:
    """Return whether to ask before a deletion. Raises UsageError when there is no terminal to ask on."""
    if call.args.yes:
        return False
    if not sys.stdin.isatty():
        raise UsageError(
            "cannot ask before deleting: standard input is not a terminal; use --yes to delete without asking"
        )
    return True


def _ask(question: str) -> bool:
    """Ask on standard error; every answer but yes, and the end of input, means no."""
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline()
    if not answer.endswith("\n"):
        print(file=sys.stderr)
    return answer.strip().lower() in ("y", "yes")
