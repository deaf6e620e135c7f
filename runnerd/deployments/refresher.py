"""What people want to see of the deployments and the API alone knows: paused ones, deleted ones, the next start.

Invariant: it only reads; it costs a few requests a minute however often `runnerctl` asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Protocol

from runnerd.core.errors import ApiAway, ApiDenied, ApiRejected
from runnerd.core.machine import Phase, RunRecord
from runnerd.core.prefect import DeploymentInfo, FlowRun, due
from runnerd.core.record_feed import RecordFeed
from runnerd.core.wakes import Wakes
from runnerd.deployments.registrar import Registrar
from runnerd.deployments.registry import Registry
from runnerd.system.ambient import Ambient

INTERVAL_S = 60.0
APART_S = 10.0  # however often it is woken
_AHEAD = timedelta(days=30)
_ROUNDS = 5  # each shows the next start of at least one more deployment, most often of all
_LOOP = "refresh"


class ReadApi(Protocol):
    async def read_deployments(self, ids: Sequence[str]) -> list[DeploymentInfo]: ...
    async def scheduled_runs(
        self, *, deployment_ids: Sequence[str], before: datetime, limit: int | None
    ) -> list[FlowRun]: ...


class Refresher:
    """`run` for ever; it reads again when `wakes.refresh` is set, and when a run of a deployment has started."""

    def __init__(
        self,
        *,
        api: ReadApi,
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
        self._woken = wakes.refresh
        feed.subscribe(self._note_start)

    def _note_start(self, record: RunRecord) -> None:
        if record.phase is Phase.STARTING:
            self._woken.set()  # the next start of its deployment is another one now

    async def run(self) -> None:
        while True:
            self._pulse.beat(_LOOP, within_s=3600.0)
            self._woken.clear()
            try:
                await self.refresh()
            except (ApiAway, ApiDenied, ApiRejected):
                pass  # the transport has said so; what is shown is merely a minute older
            await asyncio.sleep(APART_S)
            try:
                async with asyncio.timeout(INTERVAL_S - APART_S):
                    await self._woken.wait()
            except TimeoutError:
                continue

    async def refresh(self) -> None:
        ids = self._registry.ids()
        if not ids:
            return
        found = {info.id: info for info in await self._api.read_deployments(ids)}
        gone = set(ids) - set(found)
        if gone:
            self._registrar.note_gone(gone)
        for info in found.values():
            entry = self._registry.by_id(info.id)
            if entry is not None and entry.paused is not info.paused:
                self._registry.put(replace(entry, paused=info.paused))
        self._registry.note_next_runs(await self._next_runs(list(found)))

    async def _next_runs(self, ids: list[str]) -> dict[str, datetime]:
        """The soonest start of each; a busy deployment's many runs must not hide the others'."""
        next_runs: dict[str, datetime] = {}
        for _ in range(_ROUNDS):
            left = [one for one in ids if one not in next_runs]
            if not left:
                break
            runs = await self._api.scheduled_runs(deployment_ids=left, before=self._now() + _AHEAD, limit=None)
            for run in runs:
                at = due(run)
                if run.deployment_id is not None and at is not None:
                    next_runs.setdefault(run.deployment_id, at)
            if len(runs) < 200:
                break
        return next_runs
