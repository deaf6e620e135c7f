"""Puts the waiting runs of a work pool into the order in which the server delivers them, and says why one is not. Pure.

The rules are those of both majors: by the priority of the queues, then by time; a paused pool or queue delivers
nothing, and a concurrency limit counts the runs that are pending or running.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from runnerd.core.prefect import FlowRun, WorkPool, WorkQueue, due


@dataclass(frozen=True, slots=True, kw_only=True)
class Occupied:
    """How many runs take up slots: of the pool, and of queues by name; only where there is a concurrency limit."""

    pool: int = 0
    queues: Mapping[str, int] = field(default_factory=dict)


def arrange(
    pool: WorkPool, queues: Sequence[WorkQueue], runs: Iterable[FlowRun], occupied: Occupied
) -> list[tuple[FlowRun, str | None]]:
    """Return the runs that are delivered in their order, and then the others, each with what it waits for."""
    by_name = {queue.name: queue for queue in queues}

    def place(run: FlowRun) -> tuple[int, float]:
        queue, at = by_name.get(run.queue or ""), due(run)
        return queue.priority if queue is not None else 0, at.timestamp() if at is not None else 0.0

    delivered: list[tuple[FlowRun, str | None]] = []
    held: list[tuple[FlowRun, str | None]] = []
    used_queues, used = Counter(occupied.queues), occupied.pool
    for run in sorted(runs, key=place):
        why = _hold(pool, by_name.get(run.queue or ""), used=used, used_queues=used_queues)
        (delivered if why is None else held).append((run, why))
        if why is None:
            used += 1
            used_queues[run.queue or ""] += 1
    return delivered + held


def _hold(pool: WorkPool, queue: WorkQueue | None, *, used: int, used_queues: Counter[str]) -> str | None:
    if pool.is_paused:
        return f"pool {pool.name} is paused"
    if queue is not None and queue.is_paused:
        return f"queue {queue.name} is paused"
    if queue is not None and queue.concurrency_limit is not None and used_queues[queue.name] >= queue.concurrency_limit:
        return f"queue {queue.name}'s concurrency limit {queue.concurrency_limit} is reached"
    if pool.concurrency_limit is not None and used >= pool.concurrency_limit:
        return f"pool {pool.name}'s concurrency limit {pool.concurrency_limit} is reached"
    return None
