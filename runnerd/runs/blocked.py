"""Finds the runs that wait for a slot which the run that created them holds, such as a parent in `run_deployment`.

Whether a parent waits for its child is known to its code only; where it does, neither run ever ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from runnerd.core.machine import RunRecord
from runnerd.core.prefect import FlowRun
from runnerd.runs.supervisor import Supervisor


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocked:
    """A run on offer that waits for a limit of this host (`why`), of whose slots its `parent` holds one.

    `holders`: the ids of the runs that hold the slots of this limit.
    """

    run: FlowRun
    why: str
    parent: RunRecord
    holders: tuple[str, ...]

    def __str__(self) -> str:
        return f"flow run {self.run.name} ({self.run.id}) waits: {self.words}"

    @property
    def words(self) -> str:
        """What the run waits for, and that its parent is in the way."""
        slot = "the only slot" if len(self.holders) == 1 else f"one of the {len(self.holders)} slots"
        return (
            f"{self.why}: its parent run {self.parent.name} ({self.parent.id}) holds {slot}, and may wait for this run"
        )

    @property
    def remedy(self) -> str:
        return (
            f"start it regardless of the limit: runnerctl execute {self.run.id}; and raise this limit, or let the child"
            " run under another one, for example in another pool"
        )


class BlockedRuns:
    """Finds blocked runs in memory; no request is made.

    `waiting` returns the runs on offer that wait, each with the reason; `parent_of` the id of a run's parent, if known.
    """

    def __init__(
        self,
        *,
        supervisor: Supervisor,
        waiting: Callable[[], Sequence[tuple[FlowRun, str]]],
        parent_of: Callable[[str], str | None],
    ) -> None:
        self._supervisor = supervisor
        self._waiting = waiting
        self._parent_of = parent_of

    def live_parent(self, run_id: str) -> RunRecord | None:
        """Return the record of the run's parent while that is on this host."""
        parent = self._parent_of(run_id)
        live = self._supervisor.run(parent) if parent is not None else None
        return live.record if live is not None else None

    def find(self, run: FlowRun, why: str) -> Blocked | None:
        """Return the run as blocked if its parent holds a slot of the limit for which it waits."""
        parent = self.live_parent(run.id)
        if parent is None:
            return None
        holders = self._supervisor.holders_of(run)
        return Blocked(run=run, why=why, parent=parent, holders=holders) if parent.id in holders else None

    def deadlocked(self) -> list[Blocked]:
        """List the blocked runs of limits whose slots are all held by parents of blocked runs."""
        blocked = [found for run, why in self._waiting() if (found := self.find(run, why)) is not None]
        parents = {one.parent.id for one in blocked}
        return [one for one in blocked if parents.issuperset(one.holders)]
