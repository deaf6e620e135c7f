"""Runs checks that may hang, fail or take long.

Invariants: the loop is never blocked. No caller waits longer than the time limit of a group. A group that hangs is not
started a second time, so repeated requests do not pile up threads. A group that fails becomes a check that says so, and
does not affect the other groups.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from runnerd.core.units import format_duration
from runnerd.doctor.checks import Check, unknown
from runnerd.log.log import Log


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckGroup:
    """Checks that run together; `name` is the name of the check that reports the group's failure or time-out."""

    name: str
    run: Callable[[], Coroutine[Any, Any, Sequence[Check]]]
    limit_s: float = 8.0


class CheckRunner:
    """Runs check groups, each at most once at a time."""

    def __init__(self, *, log: Log) -> None:
        self._log = log
        self._running: dict[str, asyncio.Task[Sequence[Check]]] = {}

    async def run(self, group: CheckGroup) -> Sequence[Check]:
        """Run the group, or join its current run; after the time limit, leave it running for the next caller."""
        task = self._running.get(group.name)
        if task is None:
            task = asyncio.create_task(group.run(), name=f"doctor: {group.name}")
            self._running[group.name] = task
            task.add_done_callback(lambda done: self._note_end(group.name, done))
        await asyncio.wait({task}, timeout=group.limit_s)
        if not task.done():
            detail = f"check did not finish within {format_duration(group.limit_s)}; it is still running"
            return [unknown(group.name, detail, "run the doctor again later; if this stays, find what hangs")]
        if task.cancelled():
            return [unknown(group.name, "check did not finish: runnerd is stopping")]
        why = task.exception()
        if why is not None:
            detail = f"check failed with an internal error: {type(why).__name__}: {why}"
            return [unknown(group.name, detail, "see the log of runnerd: journalctl -u runnerd")]
        return task.result()

    def _note_end(self, name: str, task: asyncio.Task[Sequence[Check]]) -> None:
        self._running.pop(name, None)
        if not task.cancelled() and task.exception() is not None:
            self._log.error("a check of the doctor failed", check=name, exc_info=task.exception())
