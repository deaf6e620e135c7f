"""Answers the control API's requests about the deployments of this host."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from runnerd.config.in_force import ConfigInForce
from runnerd.control.backend.api_calls import ApiCaller
from runnerd.control.backend.documents import deployment_document, invalid_document
from runnerd.control.backend.refusals import UNREGISTERED
from runnerd.control.backend.sources import SourceChanges
from runnerd.control.contract import Peer, Refused, SourceChange
from runnerd.core.place import Json
from runnerd.core.wakes import Wakes
from runnerd.deployments.registry import Entry, Registry
from runnerd.deployments.sources.keeper import SourceKeeper
from runnerd.prefect_api.client import PrefectApi
from runnerd.runs.supervisor import Supervisor


class DeploymentsBackend:
    """Implements runnerd.control.contract.HostDeployments."""

    def __init__(
        self,
        *,
        api: PrefectApi,
        call_api: ApiCaller,
        config: ConfigInForce,
        registry: Registry,
        sources: SourceKeeper,
        supervisor: Supervisor,
        wakes: Wakes,
        now: Callable[[], datetime],
    ) -> None:
        self._api = api
        self._call_api = call_api
        self._config = config
        self._registry = registry
        self._sources, self._source_changes = sources, SourceChanges(sources=sources)
        self._supervisor = supervisor
        self._wakes = wakes
        self._now = now

    def listing(self) -> list[Json]:
        return [*self._documents(self._registry.entries()), *map(invalid_document, self._config.current.invalid)]

    def find(self, ref: str) -> list[Json]:
        found = self._documents(self._registry.find(ref))
        return found or [invalid_document(one) for one in self._config.current.invalid if one.name == ref]

    def _documents(self, entries: Sequence[Entry]) -> list[Json]:
        now = self._now()
        live = [record for record in self._supervisor.records() if record.holds_slot and record.deployment_id]
        running = Counter(record.deployment_id for record in live)
        held = Counter(record.deployment_id for record in live if record.is_held(now))
        return [
            deployment_document(
                entry,
                running=running[entry.deployment_id],
                held=held[entry.deployment_id],
                source=self._sources.of(entry.deployment),
            )
            for entry in entries
        ]

    async def change_source(self, ref: str, change: SourceChange, *, peer: Peer) -> Json | Refused:
        found = self._registry.find(ref)
        if not found:
            return Refused(status=409, detail=f"cannot {change.verb} {ref}: it is not valid; see runnerctl deployments")
        refused = await self._source_changes.carry_out(found[0].deployment, change)
        # Located here: the registry has the tree of a pull a moment later (deployments/relocating.py).
        locate = self._source_changes.locate
        entries = [replace(one, deployment=locate(one.deployment)) for one in self._registry.find(ref) or found]
        return refused or self._documents(entries)[0]

    async def set_paused(self, deployment_id: str, paused: bool, *, peer: Peer) -> Json | Refused:
        if not deployment_id:
            return UNREGISTERED
        change = self._api.pause_deployment if paused else self._api.resume_deployment
        done = await self._call_api(lambda: change(deployment_id))
        if isinstance(done, Refused):
            return done
        entry = self._registry.by_id(deployment_id)
        if not done or entry is None:
            return Refused(
                status=404, detail="there is no such deployment in Prefect any more; runnerctl status shows its state"
            )
        # The start noted before a pause may be in the past; the refresh notes the next one.
        changed = replace(entry, paused=paused, next_run_at=None)
        self._registry.put(changed)
        self._wakes.refresh.set()
        if paused:
            self._wakes.poll_now()  # the server has deleted its scheduled runs, which may be on offer here
        return self._documents([changed])[0]
