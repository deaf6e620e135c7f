"""Finds the runs that nothing will ever take up: only their own process can go on with them, and that has ended.

Such a run is paused by pause_flow_run(), or awaits a retry inside its process. Runs that ended on this host are settled
by runs/reporting.py; these here lost their process elsewhere, or before runnerd served them.

Invariants: a run is named only when no process can have it any more: its time is over by far, or this host's own
process had it when it entered its state, and has ended. At most a few requests every _EVERY_S.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from runnerd.core.errors import JournalError
from runnerd.core.machine import Phase
from runnerd.core.place import Problem
from runnerd.core.prefect import FlowRun, StateType, due
from runnerd.core.problems import Problems
from runnerd.journal.journal import Journal
from runnerd.prefect_api.client import PrefectApi
from runnerd.runs.supervisor import Supervisor
from runnerd.system.ambient import Ambient

OVERDUE_AFTER = timedelta(minutes=5)  # a process that is alive goes on, or ends its pause, within seconds
_EVERY_S = 300.0
_EVERY_WHILE_SOME_S = 60.0  # so that one that was cancelled is soon not named any more
_NAMED_MAX = 20  # problems; the last one says how many more there are


@dataclass(frozen=True, slots=True, kw_only=True)
class Abandoned:
    """A run without a process; `ended_here`: the process was one of this host."""

    run: FlowRun
    ended_here: bool

    def __str__(self) -> str:
        state = self.run.state
        doing = "paused" if state.type is StateType.PAUSED else "awaiting a retry"
        since = f" since {state.since:%Y-%m-%d %H:%M:%S} UTC" if state.since is not None else ""
        gone = "which has ended on this host" if self.ended_here else "which does not go on with it though it is time"
        return f"flow run {self.run.name} ({self.run.id}) has been {doing} inside a process{since}, {gone}"

    @property
    def remedy(self) -> str:
        """What an administrator can do; of a paused run both majors refuse every claim."""
        if self.run.state.type is StateType.PAUSED:
            return f"set it to Cancelled in Prefect's UI, or: prefect flow-run delete {self.run.id}"
        unsure = "" if self.ended_here else "if no host has this process any more, "
        return f"{unsure}cancel it in Prefect, or start it here: runnerctl execute {self.run.id}"


class AbandonedRuns:
    """Remembers the abandoned runs of `deployments` (ids) and of work `pools` (names), as of the last look-up."""

    def __init__(
        self,
        *,
        api: PrefectApi,
        supervisor: Supervisor,
        journal: Journal,
        deployments: Callable[[], Sequence[str]],
        pools: Callable[[], Sequence[str]],
        ambient: Ambient,
        problems: Problems,
    ) -> None:
        self._api = api
        self._supervisor = supervisor
        self._journal = journal
        self._deployments = deployments
        self._pools = pools
        self._now = ambient.now
        self._clock = ambient.clock
        self._found: list[Abandoned] = []
        self._looked_up_at: float | None = None
        problems.register(self._problems)

    def known(self) -> list[Abandoned]:
        """Return the abandoned runs, without those that this host has started since."""
        return [one for one in self._found if self._supervisor.run(one.run.id) is None]

    async def look_up_if_due(self) -> None:
        """Look up anew unless that was done a short time ago. Raises ApiError."""
        every_s = _EVERY_WHILE_SOME_S if self._found else _EVERY_S
        if self._looked_up_at is None or self._clock() - self._looked_up_at >= every_s:
            await self.look_up()

    async def look_up(self) -> None:
        """Ask the API which runs only their own process can go on with. Raises ApiError."""
        self._looked_up_at = self._clock()
        deployments, pools = self._deployments(), self._pools()
        listed = await self._api.queries.bound_runs(deployments=deployments, pools=pools)
        bound = {run.id: run for run in listed if run.state.needs_process}
        self._found = [found for run in bound.values() if (found := self._judge(run)) is not None]

    def _judge(self, run: FlowRun) -> Abandoned | None:
        if self._supervisor.run(run.id) is not None:
            return None
        if run.state.since is not None and self._ended_here(run.id, run.state.since):
            return Abandoned(run=run, ended_here=True)
        deadline = run.state.pause_until if run.state.type is StateType.PAUSED else due(run)
        overdue = deadline is not None and self._now() - deadline > OVERDUE_AFTER
        return Abandoned(run=run, ended_here=False) if overdue else None

    def _ended_here(self, run_id: str, since: datetime) -> bool:
        """Return whether the process that entered this state was one of this host, which has ended."""
        try:
            record = self._journal.run(run_id)
        except JournalError:  # in journal.problem already
            return False
        if record is None or record.phase is not Phase.DONE or record.started_at is None or record.ended_at is None:
            return False
        return record.started_at <= since <= record.ended_at

    def _problems(self) -> list[Problem]:
        known = self.known()
        found = [Problem(message=f"{one}: {one.remedy}") for one in known[:_NAMED_MAX]]
        if len(known) > _NAMED_MAX:
            found.append(Problem(message=f"{len(known) - _NAMED_MAX} more flow runs wait for a process that has ended"))
        return found
