"""The changes that runnerctl makes to work pools and to work queues alike, and the question before a deletion."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from runnerd.cli.call import DONE, Call, Usage
from runnerd.cli.text import clean
from runnerd.control.client import Json


class Changes(NamedTuple):
    """Changes one pool or queue, as `noun` says, that the control API has at `place`."""

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
        """Delete it and return its last document; None when the user, asked on a terminal, said no. Raises Usage."""
        if _must_ask(call) and not _confirmed(question(call.client.get(self.place(call)))):
            call.console.remark("nothing was deleted")
            return None
        return call.client.post(f"{self.place(call)}/delete")

    def _change(self, call: Call, action: str, body: Json, changes: Mapping[str, Any]) -> int:
        its = call.client.post(f"{self.place(call)}/{action}", body)
        say(call, its, f"{self.noun} {clean(its['name'])} {_changed(its, changes)}")
        return DONE


def say(call: Call, document: Json, words: str) -> None:
    """Print the document with --json, else `words`."""
    if call.console.json:
        call.console.document(document)
    else:
        call.console.line(words)


def _changed(its: Json, changes: Mapping[str, Any]) -> str:
    """Describe one change."""
    if "paused" in changes:
        return "is paused: it delivers no runs" if changes["paused"] else "is resumed: it delivers runs again"
    if "priority" in changes:
        return f"has priority {its['priority']}"
    limit = its["concurrency_limit"]
    return "has no concurrency limit" if limit is None else f"has a concurrency limit of {limit}"


def _must_ask(call: Call) -> bool:
    """Whether a deletion needs a question. Raises Usage where no terminal can answer it."""
    if call.args.yes:
        return False
    if not sys.stdin.isatty():
        raise Usage("cannot ask whether to delete it: standard input is not a terminal; add --yes to delete it")
    return True


def _confirmed(question: str) -> bool:
    """Ask on standard error; anything but yes, the end of input too, is no."""
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline()
    if not answer.endswith("\n"):
        print(file=sys.stderr)
    return answer.strip().lower() in ("y", "yes")
