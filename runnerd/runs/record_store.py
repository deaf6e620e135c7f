"""Persists one run's record, and repeats the requests of a run to the API.

Invariant: a change is on disk before any code acts on it, so that the next daemon finds what this one acted on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from runnerd.config.in_force import ConfigInForce
from runnerd.core.backoff import Backoff
from runnerd.core.commands import CommandRules
from runnerd.core.errors import ApiRejected
from runnerd.core.machine import Event, Hook, Intent, Phase, RunRecord, advance
from runnerd.core.place import Json
from runnerd.core.record_feed import RecordFeed
from runnerd.journal.journal import Journal
from runnerd.launch.prepared import Launcher
from runnerd.log.alerts import alert_of_run
from runnerd.log.log import about
from runnerd.notices.making import NoticeMaker
from runnerd.notices.queue import NoticeQueue
from runnerd.prefect_api.backoff import persist
from runnerd.processes.link import SpawnerLink
from runnerd.runs.claiming import FlowRunApi
from runnerd.system.ambient import Ambient
from runnerd.system.disk_room import DiskRoom

T = TypeVar("T")
_REFUSED_FIRST_S = 2.0
_REFUSED_CAP_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """Holds the parts of the daemon that every run uses.

    `feed` gets each new record, after the record is on disk; `notice_queue` gets the notices of ends, and
    `notice_maker` makes them. `hooked` returns whether the flow of a run has such hooks, as far as that is known
    without running the flow's code. `command_of` returns the rules of a deployment's command, None for a flow's.
    """

    api: FlowRunApi
    link: SpawnerLink
    journal: Journal
    launcher: Launcher
    ambient: Ambient
    config: ConfigInForce
    feed: RecordFeed
    hooked: Callable[[RunRecord, Hook], Awaitable[bool]]
    command_of: Callable[[str | None], CommandRules | None]
    room: DiskRoom
    notice_maker: NoticeMaker
    notice_queue: NoticeQueue


class RunRecordStore:
    """Holds the record of one run; only `save`, `step`, `update` and `discard` change the record."""

    def __init__(self, *, record: RunRecord, context: RunContext) -> None:
        self.record = record
        self._context = context

    def step(self, event: Event) -> None:
        """Save the phase that the transition table gives for `event`."""
        self.save(advance(self.record, event), event)

    def save(self, record: RunRecord, event: str) -> None:
        """Save `record` on disk, then in memory, and log a new phase. Raises JournalError."""
        before = self.record.phase
        ends = record.phase is Phase.DONE and before is not Phase.DONE
        notices = self._context.notice_maker.of_end(record) if ends else ()
        self._context.journal.save(record, event, notices=notices)
        self._context.notice_queue.add(notices)
        self.record = record
        if record.phase is not before or record.phase is Phase.CLAIMING:
            fields = {"run": record.id, "deployment": record.deployment, "phase": record.phase, **_detail(record)}
            alert = alert_of_run(record) if record.phase is not before else None
            log = self._context.ambient.log.info if alert is None else self._context.ambient.log.warning
            log("run", **fields, alert=alert, about=about(record))
        self._context.feed.publish(record)

    def update(self, **facts: Json) -> None:
        """Change fields in memory, such as the run's name in the API; the next step saves them."""
        self.record = replace(self.record, **facts)

    def discard(self, before: RunRecord | None) -> None:
        """Drop a claim that was lost: the journal holds `before` again, or nothing of the run."""
        self._context.journal.withdraw_claim(self.record.id, before)
        self.record = advance(self.record, Event.CLAIM_LOST)
        self._context.feed.publish(self.record)

    async def retry_always(self, request: Callable[[], Awaitable[T]]) -> T:
        """Repeat `request` until the API accepts it, also after ApiRejected.

        For requests that must not be lost: a proxy, or a server during its upgrade, rejects for a while only.
        """
        backoff = Backoff(first_s=_REFUSED_FIRST_S, cap_s=_REFUSED_CAP_S, jitter=0.0)
        logged = False
        while True:
            try:
                return await self.retry_while_away(request)
            except ApiRejected as error:
                if not logged:
                    what = "the API rejects a request of a run; the request is repeated"
                    self._context.ambient.log.error(what, run=self.record.id, why=str(error), about=about(self.record))
                logged = True
            await asyncio.sleep(backoff.next_s())

    async def retry_while_away(self, request: Callable[[], Awaitable[T]]) -> T:
        """Repeat `request` while the API is away or denies access. Raises ApiRejected."""
        return await persist(request, backoff=self._context.ambient.backoff())


def _detail(record: RunRecord) -> dict[str, Any]:
    """Return the fields that the log line of this phase adds."""
    match record.phase:
        case Phase.RUNNING:
            return {"pid": record.identity.pid if record.identity else None, "user": record.user}
        case Phase.STOPPING | Phase.KILLING:
            # A host that stops drains too; `evict` is a word of records and documents.
            return {"reason": "drain" if record.intent is Intent.EVICT else record.intent}
        case Phase.REPORTING:
            return {"exit": record.words}
        case Phase.DONE:
            return {"exit": record.words, "state": record.api_state_name}
        case _:
            return {}
