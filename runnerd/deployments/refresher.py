"""Refreshes the registry from the API: which deployments are paused, which were deleted, and their next starts.

Invariants: refreshing only reads from the API; it costs a few requests a minute, however often `runnerctl` is used; a
deployment counts as deleted only where the API has answered so for this very deployment.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from datetime import datetime, timedelta

from runnerd.core.errors import ApiAway, ApiError
from runnerd.core.machine import Phase, RunRecord
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
_NEXT_START_WITHIN = timedelta(days=30)
_REQUESTS_FOR_NEXT_STARTS = 5  # the first mostly suffices; each answers for at least one more deployment
_LOOP = "refresh"


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
        self._now = ambient.now
        self._contained = Containment(log=ambient.log, loop=_LOOP)
        self._woken = wakes.refresh
        feed.subscribe(self._note_start)

    def _note_start(self, record: RunRecord) -> None:
        if record.phase is Phase.STARTING:
            self._woken.set()  # its deployment has another next start now

    async def run(self) -> None:
        """Refresh for ever; errors of the API only leave older values in the registry."""
        while True:
            self._pulse.beat(_LOOP, within_s=3600.0)
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
            return await self._api.check()
        found = {info.id: info for info in await self._api.read_deployments(ids)}
        gone = {one for one in set(ids) - set(found) if await self._is_deleted(one)}
        if gone:
            self._registrar.register_again(gone)
        for info in found.values():
            entry = self._registry.by_id(info.id)
            if entry is not None and entry.paused is not info.paused:
                self._registry.put(replace(entry, paused=info.paused))
        self._registry.note_next_runs(await self._next_runs(list(found)))

    async def _is_deleted(self, deployment_id: str) -> bool:
        """Whether the API answers that there is no such deployment; a list may lack what could not be read."""
        try:
            return await self._api.pools.deployment(deployment_id) is None
        except ApiAway as error:
            if not error.answered:
                raise
            return False

    async def _next_runs(self, ids: list[str]) -> dict[str, datetime]:
        """Return each deployment's next start.

        One answer holds at most PAGE runs, which a busy deployment may fill, so the others are requested again.
        """
        next_runs: dict[str, datetime] = {}
        for _ in range(_REQUESTS_FOR_NEXT_STARTS):
            left = [one for one in ids if one not in next_runs]
            if not left:
                break
            runs = await self._api.scheduled_runs(
                deployment_ids=left, before=self._now() + _NEXT_START_WITHIN, limit=None
            )
            for run in runs:
                at = due(run)
                if run.deployment_id is not None and at is not None:
                    next_runs.setdefault(run.deployment_id, at)
            if not runs.full:
                break
        return next_runs
