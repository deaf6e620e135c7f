"""Makes the launch spec of a claimed run of a work pool, from what Prefect knows of the run.

Invariants: the user that the run runs as comes from the configuration, never from the API; a reason why the run cannot
be started is one sentence that says what is wrong and where that was set; no looked-up value outlives the launch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from runnerd.core.backoff import Backoff
from runnerd.core.errors import ApiRejected
from runnerd.core.machine import RunRecord
from runnerd.core.place import Json
from runnerd.core.prefect import AGENT, PROCESS, BlockDocument, FlowRun, PoolDeployment, Variable, WorkPool
from runnerd.core.process import LaunchSpec
from runnerd.files.bounded_calls import Unanswered
from runnerd.launch.environment import Environments
from runnerd.launch.prepared import Prepared, WarmWish
from runnerd.launch.scratch import scratch_directory
from runnerd.launch.spec import ApiAccess, hooks_spec, program_text
from runnerd.pools.job.launch_spec import Attribution, pool_launch_spec
from runnerd.pools.job.lookups import BlockNamed, BlockWithId, Lookup, VariableNamed
from runnerd.pools.job.process_job import ProcessJob, process_template
from runnerd.pools.job.template import Sources, Unresolvable, run_context
from runnerd.pools.job.wire import AgentSources
from runnerd.pools.resolving import JobResolver
from runnerd.pools.table import PoolTable, Served
from runnerd.prefect_api.backoff import persist
from runnerd.prefect_api.client import PrefectApi

LookedUp = dict[Lookup, BlockDocument | Variable | None]  # what a job names, as the API has it


@dataclass(frozen=True, slots=True, kw_only=True)
class _RunFacts:
    """What the files and Prefect say of one run."""

    served: Served
    pool: WorkPool
    run: FlowRun
    deployment: PoolDeployment
    flow: str
    base: Mapping[str, str]
    from_file: Mapping[str, str]

    @property
    def full_name(self) -> str:
        return f"{self.flow}/{self.deployment.name}"


class PoolLauncher:
    """Launches runs of the pools in the table. `worker_name` is this host's name among the workers of a pool."""

    def __init__(
        self,
        *,
        api: PrefectApi,
        table: PoolTable,
        jobs: JobResolver,
        environments: Environments,
        access: Callable[[], ApiAccess],
        output_dir: str,
        worker_name: Callable[[], str],
        backoff: Callable[[], Backoff],
    ) -> None:
        self._api = api
        self._table = table
        self._jobs = jobs
        self._environments = environments
        self._access = access
        self._output_dir = output_dir
        self._worker_name = worker_name
        self._backoff = backoff

    async def prepare(self, record: RunRecord) -> Prepared:
        """Make the launch spec of this attempt, or say why the run cannot be started. Raises ApiError."""
        return await self._prepare(record, None)

    async def prepare_plan(self, record: RunRecord, run: FlowRun) -> Prepared:
        """Make the launch spec that a start of this run would have, which Prefect need not have. Raises ApiError."""
        return await self._prepare(record, run)

    async def _prepare(self, record: RunRecord, planned: FlowRun | None) -> Prepared:
        self._jobs.warm()  # starts while the API answers
        facts = await self._read_facts(record, planned)
        if isinstance(facts, str | Unanswered):
            return Prepared(start=facts)
        known: dict[str, Json] = {"name": facts.run.name, "deployment": facts.deployment.name, "flow": facts.flow}
        found: LookedUp = {}
        job = await self._resolve_job(facts, found)
        if isinstance(job, Unresolvable):
            return Prepared(start=job.problem, record_fields=known)
        run, access = facts.served.settings.run, self._access()
        own = {"base": facts.base, "api": access.environment, "file": facts.from_file, "run": run.environment}
        return Prepared(
            start=self._make_spec(replace(record, **known), facts, job, access),
            user=run.user or facts.base["USER"],
            warm=WarmWish(start=run.start, preload=run.preload, owner=facts.deployment.id),
            record_fields={
                **known,
                "process_name": job.name,
                "labels": job.labels,
                "stream_output": job.stream_output,
            },
            layers={**own, "job": job.env},
            secrets=tuple(_secrets(found)),
        ).with_commands(run)

    def _make_spec(self, record: RunRecord, facts: _RunFacts, job: ProcessJob, access: ApiAccess) -> LaunchSpec:
        run = facts.served.settings.run
        tmp = run.environment.get("TMPDIR") or facts.from_file.get("TMPDIR") or "/tmp"
        return pool_launch_spec(
            record,
            job,
            run=run,
            access=access,
            base=facts.base,
            file_environment=facts.from_file,
            output=os.path.join(self._output_dir, f"{record.id}.{record.attempt}.log"),
            scratch=scratch_directory(record, tmp=tmp) if facts.served.settings.scratch else None,
            attribution=Attribution(
                worker=self._worker_name(),
                deployment_id=facts.deployment.id,
                deployment=facts.deployment.name,
                flow_id=facts.deployment.flow_id,
                flow=facts.flow,
            ),
        )

    async def prepare_hooks(self, record: RunRecord) -> LaunchSpec | str | Unanswered:
        """Make the launch spec of this run's hooks, or say why they cannot be run, or not yet. Waits for the API."""
        try:
            prepared = await persist(lambda: self.prepare(record), backoff=self._backoff())
        except ApiRejected as error:
            return str(error)
        if isinstance(prepared.start, str | Unanswered):
            return prepared.start
        served = self._table.get(record.pool)
        if served is None:  # a reload dropped the pool meanwhile
            return _not_served(record)
        run = served.settings.run
        flow = replace(prepared.start, argv=(run.python,))  # without the job's own command
        return hooks_spec(flow, record, program=program_text("run_hooks"), timeout_s=run.hook_timeout_s)

    async def _read_facts(self, record: RunRecord, planned: FlowRun | None) -> _RunFacts | str | Unanswered:
        served = self._table.get(record.pool)
        if served is None:
            return _not_served(record)
        pool = served.pool or await self._api.pools.read_pool(served.name)
        if pool is None:
            return f"work pool {served.name} does not exist any more"
        if pool.type not in (PROCESS, AGENT):  # the jobs of other types run elsewhere
            return f"work pool {served.name} is of type {pool.type} by now"
        if record.deployment_id is None:
            return "it has no deployment: a flow that is submitted to a work pool by itself cannot be run here"
        run = planned or await self._api.read_run(record.id)
        deployment = await self._api.pools.deployment(record.deployment_id)
        flow = await self._api.read_flow(deployment.flow_id) if deployment is not None else None
        if run is None or deployment is None or flow is None:
            return "its deployment does not exist any more"
        environment = await self._environments.build_layers(served.settings.run)
        if isinstance(environment, str | Unanswered):
            return environment
        base, from_file = environment
        return _RunFacts(
            served=served,
            pool=pool,
            run=replace(run, pool=record.pool, queue=record.queue),
            deployment=deployment,
            flow=flow,
            base=base,
            from_file=from_file,
        )

    # --- the job -----------------------------------------------------------------------------------------------------

    async def _resolve_job(self, facts: _RunFacts, found: LookedUp) -> ProcessJob | Unresolvable:
        """Resolve the job; what has to be looked up for that is added to `found`."""
        if facts.pool.type == AGENT:
            return await self._agent_job(facts)
        sources = Sources(
            pool=facts.pool.name,
            template=facts.pool.base_job_template or process_template(),
            deployment=facts.full_name,
            deployment_variables=facts.deployment.job_variables,
            run_variables=facts.run.job_variables,
            environment={**facts.base, **facts.from_file, **facts.served.settings.run.environment},
            context=run_context(facts.run, flow=facts.flow),
        )
        while isinstance(answer := await self._jobs.resolve(facts.pool.name, sources, found), frozenset):
            for lookup in answer:
                found[lookup] = await self._look_up(lookup)
        return answer

    async def _agent_job(self, facts: _RunFacts) -> ProcessJob | Unresolvable:
        block_id = facts.deployment.infrastructure_document_id
        block = await self._api.pools.block_by_id(block_id) if block_id is not None else None
        if block_id is not None and block is None:
            return Unresolvable(f"deployment {facts.full_name}'s infrastructure block does not exist any more")
        overrides = {**facts.deployment.job_variables, **facts.run.job_variables}
        sources = AgentSources(block=block, deployment=facts.full_name, overrides=overrides)
        answer = await self._jobs.resolve(facts.pool.name, sources, {})
        if isinstance(answer, frozenset):
            return Unresolvable("an infrastructure block asks for other blocks")
        return answer

    async def _look_up(self, lookup: Lookup) -> BlockDocument | Variable | None:
        match lookup:
            case BlockNamed():
                return await self._api.pools.block_by_name(lookup.type_slug, lookup.name)
            case BlockWithId():
                return await self._api.pools.block_by_id(lookup.id)
            case VariableNamed():
                return await self._api.pools.variable(lookup.name)


def _secrets(found: LookedUp) -> Iterator[str]:
    """Yield the texts and numbers in the blocks of a job."""
    left: list[Json] = [block.data for block in found.values() if isinstance(block, BlockDocument)]
    while left:
        value = left.pop()
        if isinstance(value, Mapping):
            left += value.values()
        elif isinstance(value, list):
            left += value
        elif value is not None and not isinstance(value, bool):
            yield str(value)


def _not_served(record: RunRecord) -> str:
    return f"work pool {record.pool} is not served by this host any more"
