"""Says which runs wait on this host, and for what: runs on offer, and claimed ones that cannot start yet.

Invariant: this is read from memory, so that status never waits for the API.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from datetime import datetime, timedelta

from runnerd.core.exit_words import time_text
from runnerd.core.machine import Phase, RunRecord
from runnerd.core.place import Json
from runnerd.core.prefect import ApiCondition, FlowRun, due
from runnerd.deployments.registry import Registry
from runnerd.polling.poller import Poller
from runnerd.prefect_api.client import PrefectApi
from runnerd.runs.blocked import BlockedRuns
from runnerd.runs.supervisor import Supervisor

LISTED_MAX = 100  # in the status document; the total says how many there are
# An API that is degraded for requests of another kind answers a claim, or a report, within this time.
_ANSWER_TAKES = timedelta(seconds=5)
_AWAY = (ApiCondition.UNREACHABLE, ApiCondition.MAINTENANCE)  # no request is answered
NO_SLOT = "AwaitingConcurrencySlot"  # the state's name in which a 3.x server reschedules a claim
NO_SLOT_WORDS = "Prefect has no slot of the deployment's concurrency limit; the claim is tried again when it is due"


class WaitReasons:
    """The reasons to wait, and the documents of the runs that do."""

    def __init__(
        self,
        *,
        api: PrefectApi,
        supervisor: Supervisor,
        poller: Poller,
        blocked: BlockedRuns,
        registry: Registry,
        now: Callable[[], datetime],
    ) -> None:
        self._api = api
        self._now = now
        self._supervisor = supervisor
        self._poller = poller
        self._blocked = blocked
        self._registry = registry

    def reason(self, run: FlowRun) -> str | None:
        """Return what a run on offer waits for; None where nothing is known to delay it."""
        why = self._poller.on_offer.waiting.get(run.id)
        if why is not None:
            blocked = self._blocked.find(run, why)
            return why if blocked is None else blocked.words
        if (refusal := self._supervisor.refusal_of(run.id)) is not None:
            return f"Prefect refused the claim, which is tried again: {refusal}"
        if run.state.name == NO_SLOT:
            return NO_SLOT_WORDS
        return None

    def documents(self, *, listed_max: int = LISTED_MAX) -> tuple[list[Json], int]:
        """Return the documents of the first runs that wait, those due first, and how many runs wait."""
        claimed = [document for record in self._supervisor.records() if (document := self._claimed(record)) is not None]
        offered = [run for run in self._poller.on_offer.runs.values() if self._waits(run)]
        first = heapq.nsmallest(listed_max, offered, key=_due_at)  # there may be ten thousand: no document for each
        found = sorted([*claimed, *map(self._offered, first)], key=lambda one: str(one["due_at"]))
        return found[:listed_max], len(claimed) + len(offered)

    def _waits(self, run: FlowRun) -> bool:
        """Return whether `reason` has one for this run of the offers."""
        if self._supervisor.run(run.id) is not None:
            return False
        on_offer = self._poller.on_offer
        return (
            run.id in on_offer.waiting or run.state.name == NO_SLOT or self._supervisor.refusal_of(run.id) is not None
        )

    def _offered(self, run: FlowRun) -> Json:
        entry = self._registry.by_id(run.deployment_id)
        its = {"deployment": entry.deployment.name if entry else None, "flow": entry.flow if entry else None}
        parent = self._blocked.live_parent(run.id)
        more = {"due_at": time_text(due(run)), "phase": None, "parent": parent.id if parent is not None else None}
        return _document(run, waiting=self.reason(run), **its, **more)

    def _claimed(self, record: RunRecord) -> Json | None:
        why = self.claimed_reason(record)
        if why is None:
            return None
        its = {"deployment": record.deployment, "flow": record.flow}
        more = {"due_at": time_text(record.due_at or record.created_at), "phase": record.phase.value, "parent": None}
        return _document(record, waiting=why, **its, **more)

    def claimed_reason(self, record: RunRecord) -> str | None:
        """Return what delays a claimed run: an answer of the API, or disk space for the run's record.

        A run in `reporting` has ended, and its verdict waits for the API.
        """
        if record.phase is Phase.STARTING and record.waiting is not None:
            return record.waiting
        own = record.step is not None or record.hook is not None or record.after_due  # processes of this host
        asks = record.phase in (Phase.CLAIMING, Phase.STARTING, Phase.REPORTING) and not own
        if not asks or not self._waits_for_api(record):
            return None
        return f"the API is {self._api.health.words}"

    def _waits_for_api(self, record: RunRecord) -> bool:
        """Return whether the state of the API says what this run waits for."""
        condition = self._api.health.condition
        if condition in _AWAY:
            return True
        # Degraded is the API for one kind of request, which need not be one of this run's.
        since = {Phase.CLAIMING: record.created_at, Phase.REPORTING: record.ended_at}.get(record.phase)
        stuck = since is not None and self._now() - since > _ANSWER_TAKES
        return stuck and condition is not ApiCondition.OK


def _document(run: FlowRun | RunRecord, **more: Json) -> Json:
    return {"id": run.id, "name": run.name, "pool": run.pool, "queue": run.queue, **more}


def _due_at(run: FlowRun) -> float:
    at = due(run)
    return at.timestamp() if at is not None else 0.0
