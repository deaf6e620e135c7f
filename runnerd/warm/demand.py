"""Decides how much a warm interpreter is worth: how often runs need it, and how long its imports take.

Invariant: it remembers a bounded number of plans, those needed last.
"""

from __future__ import annotations

from collections import deque

from runnerd.warm.plan import Plan

FREQUENT_RUNS = 2  # within warm.idle
UNKNOWN_IMPORT_S = 3.0
_IMPORT_MIN_S, _IMPORT_MAX_S = 0.5, 60.0
_PLANS_MAX = 1000


class Demand:
    """Remembers when runs needed each interpreter, and how long the imports took; times by the monotonic clock."""

    def __init__(self) -> None:
        self._needed: dict[Plan, deque[tuple[str, float]]] = {}  # by plan: the last runs, and when
        self._imports: dict[Plan, float] = {}

    def note_run(self, plan: Plan, run_id: str, *, at_s: float) -> None:
        """Note that a run could be forked from such an interpreter; a start that is tried again counts once."""
        runs = self._needed.pop(plan, None) or deque(maxlen=FREQUENT_RUNS)
        if not runs or runs[-1][0] != run_id:
            runs.append((run_id, at_s))
        self._needed[plan] = runs
        _bound(self._needed)

    def note_import(self, plan: Plan, seconds: float) -> None:
        """Note how long the imports took."""
        self._imports.pop(plan, None)
        self._imports[plan] = seconds
        _bound(self._imports)

    def is_frequent(self, plan: Plan, *, at_s: float, idle_s: float) -> bool:
        """Whether FREQUENT_RUNS runs needed it within the last `idle_s` seconds."""
        runs = self._needed.get(plan)
        return runs is not None and len(runs) >= FREQUENT_RUNS and at_s - runs[0][1] <= idle_s

    def was_needed(self, plan: Plan, *, within_s: float, of_s: float) -> bool:
        """Whether a run needed it in the last `within_s` seconds before `of_s`."""
        runs = self._needed.get(plan)
        return runs is not None and of_s - runs[-1][1] <= within_s

    def import_s(self, plan: Plan) -> float:
        """Estimate how long the imports take: as long as last time."""
        return min(max(self._imports.get(plan, UNKNOWN_IMPORT_S), _IMPORT_MIN_S), _IMPORT_MAX_S)


def _bound(table: dict[Plan, deque[tuple[str, float]]] | dict[Plan, float]) -> None:
    while len(table) > _PLANS_MAX:
        del table[next(iter(table))]
