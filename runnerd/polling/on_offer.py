"""What the API offers to be started and nobody has taken yet. Pure.

Invariant: why something waits is only known of what is on offer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from heapq import heapify, heappop, heapreplace

from runnerd.core.prefect import FlowRun, due


@dataclass(slots=True)
class OnOffer:
    """The runs last offered and not yet taken, each source's in its order, and why each of them waits."""

    runs: dict[str, FlowRun] = field(default_factory=dict)
    waiting: dict[str, str] = field(default_factory=dict)
    full_page: bool = False
    unjudged: bool = False  # found while draining, so late.policy has not been applied

    def put(self, found: Sequence[FlowRun]) -> None:
        self.runs.update({run.id: run for run in found})

    def of_pools(self) -> dict[str, FlowRun]:
        return {run.id: run for run in self.runs.values() if run.pool is not None}

    def keep_pools(self, names: Collection[str]) -> None:
        """Without the runs of other pools."""
        self.runs = {run.id: run for run in self.runs.values() if run.pool is None or run.pool in names}

    def drop_pool(self, name: str) -> None:
        """Without the runs of this pool."""
        self.runs = {run.id: run for run in self.runs.values() if run.pool != name}

    def waits(self, name: str) -> bool:
        """Whether anything of this pool waits for something else than its time."""
        return any(run.pool == name for run_id, run in self.runs.items() if run_id in self.waiting)

    def ready(self, horizon: datetime) -> list[FlowRun]:
        """Those due by then; each in its turn."""
        return in_turn(run for run in self.runs.values() if (due(run) or horizon) <= horizon)

    def take(self, claimed: Sequence[str], skipped: dict[str, str], *, looked_at: Collection[str]) -> None:
        """Of those looked at, these were claimed and the others wait for a reason."""
        for run_id in claimed:
            self.runs.pop(run_id, None)
        still = {run_id: why for run_id, why in self.waiting.items() if run_id in self.runs}
        self.waiting = {run_id: why for run_id, why in still.items() if run_id not in looked_at} | skipped

    def keep_one_each(self, found: Sequence[FlowRun]) -> None:
        """Of those found that wait, one of each deployment: there may be ten thousand, and all are looked at again."""
        ids = {run.id for run in found}
        there = {run.deployment_id for run in self.runs.values() if run.id not in ids}
        for run in found:
            if run.id in self.waiting and run.deployment_id in there:
                self.runs.pop(run.id, None)
                del self.waiting[run.id]
            there.add(run.deployment_id)


def in_turn(offers: Iterable[FlowRun]) -> list[FlowRun]:
    """Runs of several sources, the host's own and each pool's, as their due times interleave them.

    Within one source the order stays: a pool's is that of its queues' priorities.
    """
    sources: dict[str | None, deque[FlowRun]] = {}
    for run in offers:
        sources.setdefault(run.pool, deque()).append(run)
    waiting = [(_due_or_now(source[0]), place, source) for place, source in enumerate(sources.values())]
    heapify(waiting)
    ordered: list[FlowRun] = []
    while waiting:
        _, place, source = waiting[0]
        ordered.append(source.popleft())
        if source:
            heapreplace(waiting, (_due_or_now(source[0]), place, source))
        else:
            heappop(waiting)
    return ordered


def _due_or_now(run: FlowRun) -> float:
    at = due(run)
    return at.timestamp() if at is not None else 0.0
