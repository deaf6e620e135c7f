"""Holds the runs on offer: listed by the API as due for this host, and not claimed yet. Pure.

Invariant: only runs on offer have a reason to wait.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from heapq import heapify, heappop, heapreplace

from runnerd.core.prefect import FlowRun, due


@dataclass(slots=True)
class OnOffer:
    """The runs on offer by id, each source's in the order of the API, and why those that were skipped wait."""

    runs: dict[str, FlowRun] = field(default_factory=dict)
    waiting: dict[str, str] = field(default_factory=dict)
    unjudged: bool = False  # listed while draining: late.policy was not applied to the own runs
    unlisted: set[str] = field(default_factory=set)  # created after the request for the next list was sent
    _taken: dict[str | None, set[str]] = field(default_factory=dict)  # by source: what its next list may have wrongly

    def put(self, found: Sequence[FlowRun]) -> None:
        """Put these runs on offer."""
        self.runs.update({run.id: run for run in found})

    def without_taken(self, pool: str | None, found: Sequence[FlowRun]) -> list[FlowRun]:
        """Return these runs of a list without those that were here when it was asked for or were claimed since.

        A claim reaches the API later than it is made, and the run may have ended when the list arrives: on offer, it
        would hide in `status` how it ended. `pool`: the list's source; None: own deployments.
        """
        taken = self._taken.get(pool, set())
        return [run for run in found if run.id not in taken]

    def put_created(self, run: FlowRun) -> None:
        """Put a run on offer that was just created, which a list asked for before cannot have."""
        self.put([run])
        self.unlisted.add(run.id)

    def begin_list(self, pool: str | None, *, here: Collection[str]) -> None:
        """Note that a list of this source is asked for now. `here`: ids of the runs that are claimed or under way."""
        self._taken[pool] = set(here)
        if pool is None:
            self.unlisted.clear()

    def drop_own(self) -> None:
        """Drop the runs of own deployments, and all reasons to wait: the next offer finds those that still hold.

        A run that was created while the list was on its way stays: without it, `status` would not know the run.
        """
        self.runs = {run.id: run for run in self.runs.values() if run.pool is not None or run.id in self.unlisted}
        self.waiting = {}
        self.unjudged = False

    def drop_all_own(self) -> None:
        """Drop the runs of own deployments where there are none (any more) to ask for."""
        self.begin_list(None, here=())
        self.drop_own()

    def keep_pools(self, names: Collection[str]) -> None:
        """Drop the runs of all pools but these."""
        self._taken = {pool: taken for pool, taken in self._taken.items() if pool is None or pool in names}
        self.runs = {run.id: run for run in self.runs.values() if run.pool is None or run.pool in names}

    def drop_pool(self, name: str) -> None:
        """Drop the runs of this pool."""
        self.runs = {run.id: run for run in self.runs.values() if run.pool != name}

    def withdraw(self, run_id: str) -> FlowRun | None:
        """Take a run off offer and return the run; None when it is not on offer."""
        self._note_taken([run_id])
        self.waiting.pop(run_id, None)
        return self.runs.pop(run_id, None)

    def all_waiting(self) -> list[tuple[FlowRun, str]]:
        """Return the runs that wait, each with the reason."""
        return [(self.runs[run_id], why) for run_id, why in self.waiting.items() if run_id in self.runs]

    def has_waiting(self, name: str) -> bool:
        """Whether a run of this pool is due and waits."""
        return any(run.pool == name for run_id, run in self.runs.items() if run_id in self.waiting)

    def ready(
        self, now: datetime, *, prefetch_s: Callable[[FlowRun], float], lead_s: Callable[[FlowRun], float]
    ) -> list[FlowRun]:
        """Return the runs that are due in at most their `lead_s` seconds, and those whose turn is before them.

        Of these only the ones due in at most their `prefetch_s`. Were they left out, a run that needs longer to start
        would take the slot of one that is due earlier, or of a higher priority.
        """

        def left_s(run: FlowRun) -> float:
            at = due(run)
            return (at - now).total_seconds() if at is not None else -math.inf

        near = in_turn(run for run in self.runs.values() if left_s(run) <= prefetch_s(run))
        while near and left_s(near[-1]) > lead_s(near[-1]):
            near.pop()
        return near

    def due_together(self) -> Counter[datetime | None]:
        """Count the runs on offer by when they are due."""
        return Counter(due(run) for run in self.runs.values())

    def note_outcome(self, claimed: Sequence[str], skipped: Mapping[str, str], *, offered: Collection[str]) -> None:
        """Drop the claimed runs, and renew the reasons to wait of all runs offered. `skipped`: reasons by run id."""
        self._note_taken(claimed)
        for run_id in claimed:
            self.runs.pop(run_id, None)
        still = {run_id: why for run_id, why in self.waiting.items() if run_id in self.runs}
        self.waiting = {run_id: why for run_id, why in still.items() if run_id not in offered} | dict(skipped)

    def _note_taken(self, run_ids: Sequence[str]) -> None:
        for taken in self._taken.values():
            taken.update(run_ids)

    def keep_one_each(self, found: Sequence[FlowRun]) -> None:
        """Drop waiting runs of `found` whose deployment has another run on offer.

        There may be ten thousand of them, and each offer goes through everything on offer.
        """
        ids = {run.id for run in found}
        there = {run.deployment_id for run in self.runs.values() if run.id not in ids}
        for run in found:
            if run.id in self.waiting and run.deployment_id in there:
                self.runs.pop(run.id, None)
                del self.waiting[run.id]
            there.add(run.deployment_id)


def in_turn(offers: Iterable[FlowRun]) -> list[FlowRun]:
    """Merge the runs of several sources (own deployments, and each pool) by due time.

    Within one source the order stays: in a pool it is that of the queues' priorities.
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
