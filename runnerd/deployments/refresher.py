"""Refreshes the registry from the API: which deployments are paused, which were deleted, and their next starts.

Invariants: refreshing only reads from the API; it costs a few requests a minute, however often `runnerctl` is used; a
deployment counts as deleted only where the API has answered so for this very deployment.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from runnerd.core.errors import ApiAway, ApiError
from runnerd.core.machine import Phase, RunRecord
from runnerd.core.pace import POLL_MAX_S
from runnerd.core.prefect import due
from runnerd.core.record_feed import RecordFeed
from runnerd.core.wakes import Wakes
from runnerd.deployments.registrar import Registrar
from runnerd.deployments.registry import Registry
from runnerd.prefect_api.client import PrefectApi
from runnerd.system.ambient import Ambient
from runnerd.system.containment import Containment

REFRESH_EVERY_S = 60.0
_REFRESH_GAP_MIN_S = 10.0  # however often `wakes.refresh` is set
_LIST_STARTS_EVERY_S = 300.0  # Prefect schedules for an hour ahead at least
_LISTS_AFTER_CHANGE = 2  # Prefect schedules a deployment that was changed within a minute
_NEXT_START_WITHIN = timedelta(days=30)
_REQUESTS_FOR_NEXT_STARTS = 5  # the first mostly suffices; each answers for at least one more deployment
_BEFORE_NEXT_POLL = timedelta(seconds=2 * POLL_MAX_S)
_LOOP = "refresh"


@dataclass(slots=True)
class _Starts:
    """The next starts of one deployment by run id, in their order; `whole`: there are no others within 30 days."""

    times: dict[str, datetime] = field(default_factory=dict)
    whole: bool = False

    @property
    def first(self) -> datetime | None:
        return next(iter(self.times.values()), None)


class Refresher:
    """Refreshes every minute, when `wakes.refresh` is set, and when a run has started."""

    def __init__(
        self,
        *,
        api: PrefectApi,
        registry: Registry,
        registrar: Registrar,
        feed: RecordFeed,
        wakes: Wakes,
        ambient: Ambient,
    ) -> None:
        self._api = api
        self._registry = registry
        self._registrar = registrar
        self._pulse = ambient.pulse
        self._now, self._clock = ambient.now, ambient.clock
        self._contained = Containment(log=ambient.log, loop=_LOOP)
        self._woken, self._poll_now = wakes.refresh, wakes.poll_now
        self._starts: dict[str, _Starts] = {}  # by deployment id, as the API listed them last
        self._started: set[str] = set()  # their runs that have started since that list was requested
        self._listed_at = -math.inf  # when, by the clock, that was
        self._lists_due = 0  # how often the starts are listed again however new the list is
        self._answers = 0  # of the API to all requests until the last round
        feed.subscribe(self._note_start)

    def _note_start(self, record: RunRecord) -> None:
        """Show the deployment's start after this run's at once, and have the API asked for those to come."""
        deployment_id = record.deployment_id
        if record.phase is not Phase.STARTING or record.id in self._started:
            return
        if deployment_id is None or self._registry.by_id(deployment_id) is None:  # of a pool, declared elsewhere
            return
        self._started.add(record.id)
        starts = self._starts.get(deployment_id)
        if starts is None or not starts.times:
            self._woken.set()
        if starts is None or starts.times.pop(record.id, None) is None:
            return
        if not starts.times and not starts.whole:
            self._lists_due = _LISTS_AFTER_CHANGE
            self._woken.set()
        if starts.times or starts.whole:
            self._registry.note_next_run(deployment_id, starts.first)

    async def run(self) -> None:
        """Refresh for ever; errors of the API only leave older values in the registry."""
        while True:
            self._pulse.beat(_LOOP, within_s=3600.0)
            if self._woken.is_set():
                self._lists_due = _LISTS_AFTER_CHANGE
            self._woken.clear()
            # A failure of the API was logged by the client, and is over or not at the next round.
            with self._contained.item("refresh"), contextlib.suppress(ApiError):
                await self.refresh()
            await asyncio.sleep(_REFRESH_GAP_MIN_S)
            try:
                async with asyncio.timeout(REFRESH_EVERY_S - _REFRESH_GAP_MIN_S):
                    await self._woken.wait()
            except TimeoutError:
                continue

    async def refresh(self) -> None:
        """Read all registered deployments once and note changes. Raises ApiError.

        Without any, only ask whether the API answers: a host that polls for nothing would never know.
        """
        ids = self._registry.ids()
        if not ids:
            self._starts = {}
            self._started.clear()
            return await self._check()
        found = {info.id: info for info in await self._api.read_deployments(ids)}
        gone = {one for one in set(ids) - set(found) if await self._is_deleted(one)}
        if gone:
            self._registrar.register_again(gone)
        for info in found.values():
            entry = self._registry.by_id(info.id)
            if entry is not None and entry.paused is not info.paused:
                self._registry.put(replace(entry, paused=info.paused))
                self._lists_due = _LISTS_AFTER_CHANGE
                if info.paused:
                    self._poll_now()  # the server has deleted its scheduled runs, which may be on offer here
        if self._must_list(found):
            await self._list_starts(list(found))

    def _must_list(self, ids: Collection[str]) -> bool:
        """Whether the next starts of these deployments may be others than those that are known."""
        if self._lists_due or set(ids) != set(self._starts) or self._clock() - self._listed_at >= _LIST_STARTS_EVERY_S:
            return True
        now = self._now()
        return any(starts.first is not None and starts.first <= now for starts in self._starts.values())

    async def _list_starts(self, ids: list[str]) -> None:
        self._started.clear()
        at = self._clock()
        before, self._starts = self._starts, await self._next_starts(ids)
        if any(self._is_sooner(starts.first, before.get(one)) for one, starts in self._starts.items()):
            self._poll_now()
        self._listed_at, self._lists_due = at, max(0, self._lists_due - 1)
        next_runs = {one: first for one, starts in self._starts.items() if (first := starts.first) is not None}
        self._registry.note_next_runs(next_runs)

    def _is_sooner(self, first: datetime | None, before: _Starts | None) -> bool:
        """Whether a start was not listed before, and may be due before the next poll: no event tells of it.

        Prefect's scheduler creates the runs of a deployment that was resumed or changed seconds later.
        """
        if first is None or first - self._now() > _BEFORE_NEXT_POLL:
            return False
        return before is None or before.first is None or first < before.first

    async def _check(self) -> None:
        """Ask whether the API answers, unless it has answered anything since the last round. Raises ApiError."""
        traffic = self._api.transport.traffic
        try:
            if traffic.answers == self._answers:
                await self._api.check()
        finally:
            self._answers = traffic.answers

    async def _is_deleted(self, deployment_id: str) -> bool:
        """Whether the API answers that there is no such deployment; a list may lack what could not be read."""
        try:
            return await self._api.pools.deployment(deployment_id) is None
        except ApiAway as error:
            if not error.answered:
                raise
            return False

    async def _next_starts(self, ids: list[str]) -> dict[str, _Starts]:
        """Return each deployment's next starts, at least the first one.

        One answer holds at most PAGE runs, which a busy deployment may fill, so the others are requested again.
        """
        starts = {one: _Starts() for one in ids}
        left = ids
        for _ in range(_REQUESTS_FOR_NEXT_STARTS):
            runs = await self._api.scheduled_runs(
                deployment_ids=left, before=self._now() + _NEXT_START_WITHIN, limit=None
            )
            for run in runs:
                at, its = due(run), starts.get(run.deployment_id or "")
                if its is not None and at is not None and run.id not in self._started:
                    its.times[run.id] = at
            if not runs.full:
                for one in left:
                    starts[one].whole = True
                break
            left = [one for one in left if not starts[one].times]
            if not left:
                break
        return starts
