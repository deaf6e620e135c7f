"""Looks up which flow run has created a run that waits here, such as a parent in `run_deployment`.

A parent may hold the very slot that its child waits for, and only the API knows whose child a run is.

Invariants: each run is looked up once, after a poll, at most PER_POLL of them with one request; where nothing waits, or
no waiting run has a parent, no request is made; after a failure none is made for _AFTER_FAILURE_S.
"""

from __future__ import annotations

from collections.abc import Callable

from runnerd.polling.on_offer import OnOffer
from runnerd.prefect_api.client import PrefectApi

PER_POLL = 200
_AFTER_FAILURE_S = 60.0


class Parents:
    """Remembers the parents of the runs on offer. `clock` is monotonic, in seconds."""

    def __init__(self, *, api: PrefectApi, on_offer: OnOffer, clock: Callable[[], float]) -> None:
        self._api = api
        self._on_offer = on_offer
        self._clock = clock
        self._failed_at: float | None = None  # when the last look-up began; None when the API has answered it
        self._known: dict[str, str | None] = {}  # by id of the child: the id of the parent's flow run, if it exists

    def parent_of(self, run_id: str) -> str | None:
        """Return the id of the flow run that has created this one; None for none, and until it is looked up."""
        return self._known.get(run_id)

    def forget_gone(self) -> None:
        """Forget the parents of runs that are not on offer any more."""
        self._known = {run_id: parent for run_id, parent in self._known.items() if run_id in self._on_offer.runs}

    async def look_up(self) -> None:
        """Look up the parents of runs that wait and are not known yet. Raises ApiError."""
        if self._failed_at is not None and self._clock() - self._failed_at < _AFTER_FAILURE_S:
            return
        runs = self._on_offer.runs
        waiting = (runs[run_id] for run_id in self._on_offer.waiting if run_id in runs)
        children = {run.id: run.parent_task_run_id for run in waiting if run.parent_task_run_id is not None}
        fresh = [(child, task_run) for child, task_run in children.items() if child not in self._known][:PER_POLL]
        if not fresh:
            return
        self._failed_at = self._clock()  # before the request: its time limit ends this call without an ApiError
        found = await self._api.queries.flow_runs_of([task_run for _, task_run in fresh])
        self._failed_at = None
        self._known |= {child: found.get(task_run.lower()) for child, task_run in fresh}
