"""The daemon as the control API sees it: documents from memory, and the changes people may ask for.

Invariant: everything that only reads answers without waiting for the API; `pools` alone asks it.
"""

from __future__ import annotations

import os
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from runnerd import __version__
from runnerd.config import document
from runnerd.control.backend.asking import Ask
from runnerd.control.backend.documents import (
    api_document,
    deployment_document,
    invalid_document,
    limits_document,
    offered_document,
    problem_document,
    run_document,
)
from runnerd.control.backend.metrics import gauge
from runnerd.control.backend.pools import PoolsBackend
from runnerd.control.contract import Peer, Refused
from runnerd.core.errors import JournalError
from runnerd.core.exit_words import time_text
from runnerd.core.machine import Intent, RunRecord, intend
from runnerd.core.place import Json, Problem
from runnerd.core.prefect import ApiCondition, FlowRun
from runnerd.core.settings import Config
from runnerd.deployments.refresher import Refresher
from runnerd.deployments.registry import Entry, EntryState, Registry
from runnerd.journal.journal import Journal
from runnerd.polling.poller import Poller
from runnerd.prefect_api.answers import Refused as ApiRefused
from runnerd.prefect_api.client import PrefectApi
from runnerd.processes.link import SpawnerLink
from runnerd.runs.drain import Drain
from runnerd.runs.supervisor import Supervisor
from runnerd.system.usage import usage_of
from runnerd.system.watchdog import Pulse

_UNREGISTERED = Refused(status=409, detail="the API does not have this deployment yet; `runnerctl status` says why")
HISTORY = 1000  # runs that `runnerctl runs --all` shows at most


@dataclass(slots=True)
class Feed:
    """Who wants to hear of changed runs."""

    listeners: list[Callable[[Json], None]] = field(default_factory=list)

    def tell(self, record: RunRecord) -> None:
        document = run_document(record)
        for listener in list(self.listeners):
            listener(document)


class DaemonHost:
    """Implements runnerd.control.host.Host over the running parts."""

    def __init__(
        self,
        *,
        url: str,
        api: PrefectApi,
        supervisor: Supervisor,
        poller: Poller,
        registry: Registry,
        refresher: Refresher,
        journal: Journal,
        link: SpawnerLink,
        drain: Drain,
        pulse: Pulse,
        served: Callable[[Sequence[RunRecord]], Json],
        open_pools: Callable[[], Collection[str]],
        feed: Feed,
        config: Callable[[], Config],
        reload: Callable[[], Coroutine[Any, Any, Json]],
        problems: Callable[[], list[Problem]],
        doctor: Callable[[], Coroutine[Any, Any, Json]],
        ask: Ask,
        pools: PoolsBackend,
        started_at: datetime,
    ) -> None:
        self._url = url
        self._api = api
        self._supervisor = supervisor
        self._poller = poller
        self._registry = registry
        self._refresher = refresher
        self._journal = journal
        self._link = link
        self._drain = drain
        self._pulse = pulse
        self._served = served
        self._open_pools = open_pools
        self._feed = feed
        self._config = config
        self._reload = reload
        self._problems = problems
        self.doctor = doctor
        self._ask = ask
        self.pools = pools
        self._started_at = started_at

    # --- the host -------------------------------------------------------------------------------------------------

    def status(self) -> Json:
        settings = self._config().settings
        records = self._supervisor.records()
        limits = limits_document(records, runs=settings.limits.runs, tags=dict(settings.limits.tags))
        return {
            "name": settings.name,
            "version": __version__,
            "pid": os.getpid(),
            "started_at": time_text(self._started_at),
            "api": api_document(self._url, self._api.health),
            "draining": self._drain.draining is not None,
            "drain": self._drain_document(),
            "limits": limits,
            "runs": self.runs(history=False),
            "deployments": self.deployments(),
            "pools": self._served(records),
            "problems": [problem_document(problem) for problem in self._problems()],
        }

    def _drain_document(self) -> Json:
        draining = self._drain.draining
        if draining is None:
            return None
        return {"since": time_text(draining.since), "reason": draining.reason, "until": time_text(draining.until)}

    def health(self) -> tuple[bool, Json]:
        api, stuck = self._api.health, self._pulse.stuck()
        journal = self._journal.problem
        checks = [
            _check("loops", not stuck, f"stuck: {', '.join(stuck)}" if stuck else "every loop makes progress"),
            _check("spawner", self._link.connected, self._link.problem or "connected"),
            _check("journal", journal is None, journal or "records"),
            _check("api", api.condition is ApiCondition.OK, api.detail),
        ]
        ok = all(check["ok"] for check in checks)
        return ok, {"ok": ok, "checks": checks}

    def config(self) -> Json:
        return document(self._config())

    async def metrics(self) -> str:
        records = self._supervisor.records()
        phases = {phase: sum(record.phase == phase for record in records) for phase in {r.phase for r in records}}
        states = {s: sum(e.state is s for e in self._registry.entries()) for s in EntryState}
        pools = self._served(records)
        pool_states = Counter(pool["state"] for pool in pools)
        polled, contained = self._poller.polled_at, self._supervisor.contained
        api_is_ok = self._api.health.condition is ApiCondition.OK
        lines = [
            *gauge("runnerd_runs", "Flow runs under way on this host.", "phase", phases),
            *gauge("runnerd_deployments", "Deployments of this host.", "state", states),
            *gauge("runnerd_pools", "Work pools that this host serves.", "state", pool_states),
            *gauge("runnerd_pool_runs", "Runs under way.", "pool", {pool["name"]: pool["running"] for pool in pools}),
            *gauge("runnerd_runs_max", "limits.runs", None, {"": self._config().settings.limits.runs}),
            *gauge("runnerd_api_up", "1 while the API is ok.", None, {"": int(api_is_ok)}),
            *gauge("runnerd_contained_errors", "Unexpected errors of single runs.", None, {"": contained}),
        ]
        if polled is not None:
            help_text = "When the API was last polled with success, seconds since the epoch."
            lines += gauge("runnerd_last_poll_seconds", help_text, None, {"": polled.timestamp()})
        return "\n".join(lines) + "\n"

    async def adopted(self) -> None:
        await self._supervisor.adopted.wait()

    async def reload(self, *, peer: Peer) -> Json:
        return await self._reload()

    def drain(self, *, timeout_s: float | None, reason: str | None, peer: Peer) -> Json:
        self._drain.begin(reason=reason or "asked by an operator", timeout_s=timeout_s)
        return self.status()

    def undrain(self, *, peer: Peer) -> Json:
        self._drain.end()
        self._poller.kick()
        return self.status()

    # --- runs -----------------------------------------------------------------------------------------------------

    def runs(self, *, history: bool) -> list[Json]:
        live = [self._live_document(record) for record in self._supervisor.records()]
        if not history:
            return live
        known = {document["id"] for document in live}
        past = [run_document(record) for record in self._journal.history(HISTORY) if record.id not in known]
        return [*reversed(past), *live]

    def _live_document(self, record: RunRecord) -> Json:
        identity = record.identity if record.ended_at is None else None
        usage = usage_of(identity, boot_id=self._link.boot_id) if identity is not None else None
        return run_document(record, usage)

    def run_document(self, run_id: str) -> Json | None:
        run = self._supervisor.run(run_id)
        if run is not None:
            return self._live_document(run.record)
        offered = self._poller.on_offer.runs.get(run_id)
        if offered is not None:
            return self._offered(offered)
        record = self._journal.run(run_id)
        return run_document(record) if record is not None else None

    def _offered(self, run: FlowRun) -> Json:
        waiting = self._poller.on_offer.waiting.get(run.id)
        return offered_document(run, self._registry.by_id(run.deployment_id), waiting=waiting)

    def find_runs(self, ref: str) -> list[Json]:
        records = {record.id: record for record in self._find(ref)}
        offers = {run.id: run for run in self._poller.on_offer.runs.values() if run.id not in records}
        exact = [i for i in (*records, *offers) if i == ref]
        named = [r.id for r in records.values() if r.name == ref] + [r.id for r in offers.values() if r.name == ref]
        prefixed = [i for i in (*records, *offers) if i.startswith(ref)]
        chosen = exact or named or prefixed
        return [found for found in (self.run_document(run_id) for run_id in chosen) if found is not None]

    def _find(self, ref: str) -> list[RunRecord]:
        """What the journal has, and what is under way and not in it: a run must be found to be cancelled."""
        live = [run for run in self._supervisor.records() if run.id.startswith(ref) or run.name == ref]
        try:
            past = self._journal.find(ref)
        except JournalError:  # noted in its problem
            past = []
        known = {record.id for record in past}
        return [*past, *(run for run in live if run.id not in known)]

    def subscribe(self, changed: Callable[[Json], None]) -> Callable[[], None]:
        self._feed.listeners.append(changed)
        return lambda: self._feed.listeners.remove(changed)

    def output(self, run_id: str) -> str | None:
        run = self._supervisor.run(run_id)
        record = run.record if run is not None else self._journal.run(run_id)
        return record.output if record is not None else None

    async def cancel(self, run_ids: Sequence[str], *, now: bool, peer: Peer) -> list[Json]:
        self._supervisor.cancel(run_ids, now=now)
        asked = [run.record for run in map(self._supervisor.run, run_ids) if run is not None]
        if any(intend(record, Intent.CANCEL) is not record for record in asked):
            raise JournalError(f"cannot cancel it: {self._journal.problem}")  # it is to be on disk first
        documents = (self.run_document(run_id) for run_id in run_ids)
        return [found for found in documents if found is not None]

    async def create_run(
        self, deployment_id: str, *, parameters: Json, name: str | None, tags: Sequence[str], peer: Peer
    ) -> Json | Refused:
        if not deployment_id:
            return _UNREGISTERED
        key = str(uuid.uuid4())  # a repeat after a lost answer must not be a second run
        made = await self._ask(
            lambda: self._api.create_run(
                deployment_id, parameters=parameters, name=name, tags=tags, idempotency_key=key
            )
        )
        if isinstance(made, Refused):
            return made
        if isinstance(made, ApiRefused):
            return Refused(status=422, detail=made.reason)
        self._poller.put_on_offer(made)
        return self._offered(made)

    async def execute(self, flow_run_id: str, *, peer: Peer) -> Json | Refused:
        found = await self._ask(lambda: self._api.pools.placed_run(flow_run_id))
        if isinstance(found, Refused):
            return found
        if found is None:
            return Refused(status=404, detail=f"the API has no flow run {flow_run_id}")
        if self._registry.by_id(found.deployment_id) is not None:
            found = replace(found, pool=None, queue=None)
        elif found.pool is None or found.pool not in self._open_pools():
            detail = "neither its deployment nor its work pool is served here; runnerctl status says what is"
            return Refused(status=409, detail=detail)
        if not self._supervisor.claim_now(found):
            why = self._supervisor.journal_problem or "it is under way here already"
            return Refused(status=409, detail=why)
        return self.run_document(flow_run_id)

    # --- deployments ------------------------------------------------------------------------------------------------

    def deployments(self) -> list[Json]:
        return [*self._documents(self._registry.entries()), *map(invalid_document, self._config().invalid)]

    def find_deployments(self, ref: str) -> list[Json]:
        found = self._documents(self._registry.find(ref))
        return found or [invalid_document(one) for one in self._config().invalid if one.name == ref]

    def _documents(self, entries: Sequence[Entry]) -> list[Json]:
        ids = [record.deployment_id for record in self._supervisor.records()]
        return [deployment_document(e, running=ids.count(e.deployment_id) if e.deployment_id else 0) for e in entries]

    async def set_paused(self, deployment_id: str, paused: bool, *, peer: Peer) -> Json | Refused:
        if not deployment_id:
            return _UNREGISTERED
        ask = self._api.pause_deployment if paused else self._api.resume_deployment
        done = await self._ask(lambda: ask(deployment_id))
        if isinstance(done, Refused):
            return done
        entry = self._registry.by_id(deployment_id)
        if not done or entry is None:
            return Refused(status=404, detail="the API does not have this deployment")
        self._registry.put(replace(entry, paused=paused))
        self._refresher.wake()
        return self._documents([replace(entry, paused=paused)])[0]


def _check(name: str, ok: bool, detail: str) -> dict[str, Any]:
    return {"name": name, "ok": ok, "detail": detail}
