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
from runnerd.control.contract import Peer, Refused
from runnerd.core.place import Json
from runnerd.core.wakes import Wakes
from runnerd.deployments.registry import Entry, Registry
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
        supervisor: Supervisor,
        wakes: Wakes,
        now: Callable[[], datetime],
    ) -> None:
        self._api = api
        self._call_api = call_api
        self._config = config
        self._registry = registry
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
        return [deployment_document(e, running=running[e.deployment_id], held=held[e.deployment_id]) for e in entries]

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
