"""Plans the start of a run: what would be started, as whom, by which settings, and what would hold it up.

Invariants: nothing is started, claimed or put on offer, and no warm interpreter either; the launch spec is made by the
launcher that would start the run, so that a plan cannot differ from the start.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from runnerd.config.in_force import ConfigInForce
from runnerd.control.backend.elsewhere import ENDED, RunsElsewhere, describe_hold
from runnerd.control.backend.executing import NAME_CODE
from runnerd.control.backend.plan_documents import Settings, concurrency, launch_fields
from runnerd.control.backend.waiting import WaitReasons
from runnerd.core.errors import ApiError, ApiRejected
from runnerd.core.exit_words import time_text
from runnerd.core.guests import Guest
from runnerd.core.limits import admit
from runnerd.core.place import Json
from runnerd.core.prefect import ApiCondition, ApiState, FlowRun, PoolDeployment, StateType, due
from runnerd.deployments.registry import Entry, EntryState, Registry
from runnerd.launch.prepared import Launchers, Prepared
from runnerd.polling.poller import Poller
from runnerd.pools.table import PoolTable
from runnerd.prefect_api.client import PrefectApi
from runnerd.prefect_api.values import is_uuid
from runnerd.runs.claiming import new_record
from runnerd.runs.preparing import stuck_behind
from runnerd.runs.supervisor import Supervisor, claimant_of
from runnerd.warm.table import WarmTable

NO_RUN = "00000000-0000-0000-0000-000000000000"  # the id of the run that is planned for a deployment
NEXT_LISTED = 5
_BY_HAND = "only runnerctl execute starts such a run here, by the host's own run:"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Subject:
    """What is planned: a run, which Prefect need not have, with the names of its deployment and flow.

    `served`: this host starts such a run by itself. `entry`: its deployment, where this host declares it.
    """

    run: FlowRun
    deployment: str | None
    flow: str | None
    served: bool
    entry: Entry | None = None


class Plans:
    """Makes plan documents. The methods may raise ApiError, and return None where Prefect has no such thing."""

    def __init__(
        self,
        *,
        api: PrefectApi,
        config: ConfigInForce,
        launchers: Launchers,
        registry: Registry,
        pools: PoolTable,
        supervisor: Supervisor,
        poller: Poller,
        warm: WarmTable,
        waits: WaitReasons,
        elsewhere: RunsElsewhere,
        now: Callable[[], datetime],
    ) -> None:
        self._api = api
        self._config = config
        self._launchers = launchers
        self._registry = registry
        self._pools = pools
        self._supervisor = supervisor
        self._poller = poller
        self._warm = warm
        self._waits = waits
        self._elsewhere = elsewhere
        self._now = now

    # --- a run ------------------------------------------------------------------------------------------------------

    async def of_run(self, run_id: str) -> Json | None:
        """Plan the start of this run."""
        run = await self._api.pools.placed_run(run_id)
        if run is None:
            return None
        entry = self._registry.by_id(run.deployment_id)
        own = self._registry.own(run.deployment_id) is not None
        run = replace(run, pool=None, queue=None) if own else run
        names = await self._elsewhere.names(run)
        subject = _Subject(
            run=run, deployment=names["deployment"], flow=names["flow"], served=self._serves(run), entry=entry
        )
        following = await self._next(subject)
        held = [why async for why in self._hold_run(run)]
        return await self._document(subject, held, following, kind="run", id=run.id, name=run.name)

    async def _hold_run(self, run: FlowRun) -> AsyncIterator[str]:
        live = self._supervisor.run(run.id)
        if live is not None:
            yield f"the run is on this host already: it is {live.record.phase.value}"
        elif run.state.type in ENDED:
            yield f"the run is {run.state.name} already; runnerctl retry schedules it again"
        elif run.state.type is not StateType.SCHEDULED:
            yield f"the run is {run.state.name}, and not on this host"
        else:
            on_offer = run.id in self._poller.on_offer.runs
            why = self._waits.reason(run) if on_offer else await self._elsewhere.why_waiting(run)
            at = due(run)
            if on_offer and why is None and at is not None and at > self._now():
                why = f"it is due at {time_text(at)}"
            if why is not None:
                yield why
            for more in self._hold_any(run):
                yield more

    # --- a deployment -----------------------------------------------------------------------------------------------

    async def of_deployment(self, ref: str) -> Json | None:
        """Plan the start of a run of this deployment, also of one that only a work pool has."""
        found = self._registry.find(ref)
        subject = self._of_entry(found[0]) if found else await self._of_api(ref)
        if subject is None:
            return None
        following = await self._next(subject)  # first: it finds out whether the API answers
        held = list(self._hold_entry(subject.entry)) if subject.entry is not None else []
        held += [why async for why in self._hold_pool(subject)]
        held += self._hold_any(subject.run)
        return await self._document(
            subject, held, following, kind="deployment", id=subject.run.deployment_id, name=subject.deployment
        )

    def _of_entry(self, entry: Entry) -> _Subject:
        deployment = entry.deployment
        run = _planned_run(entry.deployment_id, tags=deployment.tags)
        run = replace(run, pool=deployment.work_pool, queue=deployment.work_queue, parameters=deployment.parameters)
        served = deployment.work_pool is None or self._serves(run)
        return _Subject(run=run, deployment=deployment.name, flow=entry.flow, served=served, entry=entry)

    async def _of_api(self, ref: str) -> _Subject | None:
        found = await self._find_in_api(ref)
        if found is None:
            return None
        run = replace(
            _planned_run(found.id, tags=found.tags), pool=found.pool, queue=found.queue, flow_id=found.flow_id
        )
        flow = await self._api.read_flow(found.flow_id)
        return _Subject(run=run, deployment=found.name, flow=flow, served=self._serves(run))

    async def _find_in_api(self, ref: str) -> PoolDeployment | None:
        if is_uuid(ref):
            return await self._api.pools.deployment(ref)
        flow, slash, name = ref.partition("/")
        named = await self._api.find_deployment(flow, name) if slash else None
        return await self._api.pools.deployment(named.id) if named is not None else None

    def _hold_entry(self, entry: Entry) -> Iterator[str]:
        if entry.state is EntryState.PAUSED:
            yield "the deployment is paused: its schedules create no runs; runnerctl run does"
        elif entry.state is not EntryState.READY:
            yield f"the deployment is {entry.state.value}: {entry.problem or 'it is being registered'}"

    async def _hold_pool(self, subject: _Subject) -> AsyncIterator[str]:
        run = subject.run
        if run.pool is not None:
            pool = await self._api.pools.read_pool(run.pool)
            queue = await self._api.pools.read_queue(run.pool, run.queue) if pool and run.queue else None
            hold = describe_hold(run.pool, pool, queue, self._pools.get(run.pool))
            if hold is not None:
                yield hold
        elif not subject.served:
            yield f"its deployment is not served here; {_BY_HAND}"

    # --- both -------------------------------------------------------------------------------------------------------

    def _serves(self, run: FlowRun) -> bool:
        return self._poller.serves(run) and not self._elsewhere.of_prefect_worker(run)

    def _hold_any(self, run: FlowRun) -> Iterator[str]:
        """Yield what holds up any claim on this host, or the claims of runs like this one."""
        if self._supervisor.draining is not None:
            yield self._supervisor.draining
        health = self._api.health
        if health.condition is not ApiCondition.OK:
            yield f"the API is {health.words}"
        if self._poller.unsupported is not None:
            yield self._poller.unsupported
        if self._supervisor.record_problem is not None:
            yield self._supervisor.record_problem
        live = [one for one in self._supervisor.slot_holders() if one.run_id != run.id]
        admission = admit([claimant_of(run)], live, self._supervisor.caps())
        yield from admission.skipped.values()
        if admission.surplus:
            yield "the deployment's concurrency limit is reached, and cancels new runs"
        yield from stuck_behind(self._supervisor.records(), [run]).values()

    async def _document(self, subject: _Subject, held: list[str], following: list[datetime], **about: Json) -> Json:
        run = subject.run
        prepared, settings = await self._prepare(subject)
        kind, why = self._warm.foresee(prepared)
        fields = launch_fields(prepared, settings, start={"kind": kind, "why": why})
        claimant = claimant_of(run)
        slots = concurrency(claimant, self._supervisor.slot_holders(), self._supervisor.caps())
        return {
            **about,
            "deployment": subject.deployment,
            "flow": subject.flow,
            "pool": run.pool,
            "queue": run.queue,
            "served": subject.served,
            **fields,
            "limits": {**fields["limits"], "concurrency": slots},
            "due_at": time_text(due(run)),
            "next": [time_text(at) for at in following],
            "held_by": list(dict.fromkeys(held)),
        }

    async def _prepare(self, subject: _Subject) -> tuple[Prepared, Settings | None]:
        """Have the launch spec made, with the settings by which that is; None where there are none."""
        run, entry, guest = subject.run, subject.entry, None
        host = self._config.current.host_run
        variables = host.run.environment if host is not None else {}
        pool = self._pools.get(run.pool)
        if entry is not None and entry.deployment_id is None:
            return Prepared(start="the deployment is not registered in Prefect yet"), None
        if subject.served and pool is not None:
            its = pool.settings
            settings = Settings(run=its.run, where=str(its.place), host=variables, pool=its.name)
        elif subject.served and entry is not None:
            settings = Settings(run=entry.deployment.run, where=str(entry.deployment.place), host=variables)
        elif run.deployment_id is None:
            return Prepared(start=f"it has no deployment; {NAME_CODE.format(run.id)}"), None
        elif host is None:
            return Prepared(start="this host does not serve it"), None
        else:
            guest = Guest(deployment=subject.deployment or "", flow=subject.flow or "", user=host.run.user)
            settings = Settings(run=host.run, where="", host=variables)
        record = new_record(run, entry, before=None, at=self._now(), guest=guest)
        try:
            return await self._launchers.prepare_plan(record, run), settings
        except ApiRejected as error:
            return Prepared(start=str(error)), settings

    async def _next(self, subject: _Subject) -> list[datetime]:
        """List the next starts by schedules; while the API is away, the one that is known of an own deployment."""
        deployment_id, entry = subject.run.deployment_id, subject.entry
        if deployment_id is None:
            return []
        try:
            runs = await self._api.queries.next_runs(deployment_id, limit=NEXT_LISTED)
        except ApiError:
            return [entry.next_run_at] if entry is not None and entry.next_run_at is not None else []
        return [at for run in runs if (at := due(run)) is not None]


def _planned_run(deployment_id: str | None, *, tags: tuple[str, ...]) -> FlowRun:
    """Make the run that a deployment would have."""
    return FlowRun(
        id=NO_RUN,
        name="",
        flow_id="",
        deployment_id=deployment_id,
        state=ApiState(type=StateType.SCHEDULED, name="Scheduled"),
        tags=tags,
    )
