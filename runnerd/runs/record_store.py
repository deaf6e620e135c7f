"""What every run is given, and the one place where its record changes.

Invariant: a change is on disk before anything acts on it, so that a successor finds what we acted on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from runnerd.config.in_force import ConfigInForce
from runnerd.core.errors import ApiRejected
from runnerd.core.machine import Event, Hook, Phase, RunRecord, advance
from runnerd.core.place import Json
from runnerd.core.prefect import Verdict
from runnerd.core.record_feed import RecordFeed
from runnerd.journal.journal import Journal
from runnerd.launch.prepared import Launcher
from runnerd.log.alerts import alert_of_run
from runnerd.log.log import about
from runnerd.prefect_api.answers import Answer
from runnerd.prefect_api.backoff import persist
from runnerd.processes.link import SpawnerLink
from runnerd.runs.claiming import ClaimApi
from runnerd.system.ambient import Ambient

T = TypeVar("T")
_REFUSED_FIRST_S = 2.0
_REFUSED_CAP_S = 300.0


class FlowRunApi(ClaimApi, Protocol):
    """What one run asks of Prefect."""

    async def propose(self, run_id: str, verdict: Verdict, *, transition_id: str) -> Answer: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """What every run is given. `feed` announces each new record, after it is on disk.

    `hooked` says whether a run's flow has such hooks, as far as that is known without asking its code.
    """

    api: FlowRunApi
    link: SpawnerLink
    journal: Journal
    launcher: Launcher
    ambient: Ambient
    config: ConfigInForce
    feed: RecordFeed
    hooked: Callable[[RunRecord, Hook], bool]


class RunRecordStore:
    """The record of one run: read freely, changed by `save` and `step` only."""

    def __init__(self, *, record: RunRecord, context: RunContext) -> None:
        self.record = record
        self._context = context

    def step(self, event: Event) -> None:
        """Take the step of the table that this event is."""
        self.save(advance(self.record, event), event)

    def save(self, record: RunRecord, event: str) -> None:
        """On disk first, then in memory."""
        before = self.record.phase
        self._context.journal.save(record, event)
        self.record = record
        if record.phase is not before or record.phase is Phase.CLAIMING:
            story = {"run": record.id, "deployment": record.deployment, "phase": record.phase, **_detail(record)}
            alert = alert_of_run(record) if record.phase is not before else None
            say = self._context.ambient.log.info if alert is None else self._context.ambient.log.warning
            say("run", **story, alert=alert, about=about(record))
        self._context.feed.publish(record)

    def update(self, **facts: Json) -> None:
        """What the API calls it, and the like; on disk with the next step, for nothing hangs on it."""
        self.record = replace(self.record, **facts)

    def discard(self, before: RunRecord | None) -> None:
        """Not ours: nothing happened here, so nothing of it stays in the journal but what was there `before`."""
        self._context.journal.withdraw_claim(self.record.id, before)
        self.record = advance(self.record, Event.CLAIM_LOST)
        self._context.feed.publish(self.record)

    async def retry_always(self, request: Callable[[], Awaitable[T]]) -> T:
        """Ask until there is an answer, also where the API calls the request itself wrong.

        For what must not be lost: a proxy, or a server in the middle of its upgrade, refuses for a while only.
        """
        delay_s = _REFUSED_FIRST_S
        while True:
            try:
                return await self.retry_while_away(request)
            except ApiRejected as error:
                if delay_s == _REFUSED_FIRST_S:
                    why = "the API refuses what it has to be told; it is told again"
                    self._context.ambient.log.error(why, run=self.record.id, why=str(error), about=about(self.record))
            await asyncio.sleep(delay_s)
            delay_s = min(_REFUSED_CAP_S, delay_s * 2)

    async def retry_while_away(self, request: Callable[[], Awaitable[T]]) -> T:
        """Ask until there is an answer. Raises ApiRejected when the request itself is wrong."""
        return await persist(request, backoff=self._context.ambient.backoff())


def _detail(record: RunRecord) -> dict[str, Any]:
    """What a log line of this phase adds."""
    match record.phase:
        case Phase.RUNNING:
            return {"pid": record.identity.pid if record.identity else None, "user": record.user}
        case Phase.STOPPING | Phase.KILLING:
            return {"reason": record.intent}
        case Phase.REPORTING:
            return {"exit": record.words}
        case Phase.DONE:
            return {"exit": record.words, "state": record.api_state_name}
        case _:
            return {}
