"""From a claimed run of a work pool to what the spawner is asked to start: reads what Prefect knows of it.

Invariants: who the run is comes from the configuration, never from the API; whatever keeps it from being started comes
back as one sentence that says what is wrong and where it came from; nothing that was looked up is kept.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from runnerd.core.backoff import Backoff
from runnerd.core.errors import ApiRejected
from runnerd.core.machine import RunRecord
from runnerd.core.place import Json
from runnerd.core.prefect import AGENT, PROCESS, BlockDocument, FlowRun, PoolDeployment, Variable, WorkPool
from runnerd.core.process import LaunchSpec
from runnerd.launch.environment import Environments
from runnerd.launch.prepared import Prepared
from runnerd.launch.scratch import scratch_directory
from runnerd.launch.spec import ApiAccess, hooks_spec, program_text
from runnerd.pools.job.launch_spec import Attribution, pool_launch_spec
from runnerd.pools.job.lookups import BlockNamed, BlockWithId, Lookup, VariableNamed
from runnerd.pools.job.process_job import ProcessJob, agent_job, process_job, process_template
from runnerd.pools.job.template import Resolved, Sources, Unresolvable, lookups, resolve, run_context
from runnerd.pools.table import PoolTable, Served
from runnerd.prefect_api.backoff import persist


class PoolLookupApi(Protocol):
    """What is asked of Prefect about pools."""

    async def read_pool(self, name: str) -> WorkPool | None: ...
    async def deployment(self, deployment_id: str) -> PoolDeployment | None: ...
    async def block_by_id(self, block_id: str) -> BlockDocument | None: ...
    async def block_by_name(self, type_slug: str, name: str) -> BlockDocument | None: ...
    async def variable(self, name: str) -> Variable | None: ...


class LookupApi(Protocol):
    """What is asked of Prefect."""

    @property
    def pools(self) -> PoolLookupApi: ...
    async def read_run(self, run_id: str) -> FlowRun | None: ...
    async def read_flow(self, flow_id: str) -> str | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    """What Prefect knows of one run."""

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
    """`worker` is this host's name among the workers."""

    def __init__(
        self,
        *,
        api: LookupApi,
        table: PoolTable,
        environments: Environments,
        access: Callable[[], ApiAccess],
        output_dir: str,
        worker: Callable[[], str],
        backoff: Callable[[], Backoff],
    ) -> None:
        self._api = api
        self._table = table
        self._environments = environments
        self._access = access
        self._output_dir = output_dir
        self._worker = worker
        self._backoff = backoff

    async def prepare(self, record: RunRecord) -> Prepared:
        """What to start for this attempt, or why it cannot be. Raises ApiError."""
        facts = await self._facts(record)
        if isinstance(facts, str):
            return Prepared(start=facts)
        learnt: dict[str, Json] = {"name": facts.run.name, "deployment": facts.deployment.name, "flow": facts.flow}
        job = await self._job(facts)
        if isinstance(job, Unresolvable):
            return Prepared(start=job.problem, record_fields=learnt)
        return Prepared(
            start=self._spec(replace(record, **learnt), facts, job),
            user=facts.served.settings.run.user or facts.base["USER"],
            record_fields={
                **learnt,
                "process_name": job.name,
                "labels": job.labels,
                "stream_output": job.stream_output,
            },
        )

    def _spec(self, record: RunRecord, facts: _Facts, job: ProcessJob) -> LaunchSpec:
        run = facts.served.settings.run
        tmp = run.environment.get("TMPDIR") or facts.from_file.get("TMPDIR") or "/tmp"
        return pool_launch_spec(
            record,
            job,
            run=run,
            access=self._access(),
            base=facts.base,
            file_environment=facts.from_file,
            output=os.path.join(self._output_dir, f"{record.id}.{record.attempt}.log"),
            scratch=scratch_directory(record, tmp=tmp) if facts.served.settings.scratch else None,
            attribution=Attribution(
                worker=self._worker(),
                deployment_id=facts.deployment.id,
                deployment=facts.deployment.name,
                flow_id=facts.deployment.flow_id,
                flow=facts.flow,
            ),
        )

    async def prepare_hooks(self, record: RunRecord) -> LaunchSpec | str:
        """What to start to run this record's hooks, or why they cannot be run. Waits for the API."""
        try:
            prepared = await persist(lambda: self.prepare(record), backoff=self._backoff())
        except ApiRejected as error:
            return str(error)
        if isinstance(prepared.start, str):
            return prepared.start
        served = self._table.get(record.pool)
        if served is None:  # dropped while that was asked for
            return _not_served(record)
        run = served.settings.run
        flow = replace(prepared.start, argv=(run.python,))  # whatever command the job has
        return hooks_spec(flow, record, program=program_text("run_hooks"), timeout_s=run.hook_timeout_s)

    async def _facts(self, record: RunRecord) -> _Facts | str:
        served = self._table.get(record.pool)
        if served is None:
            return _not_served(record)
        pool = served.pool or await self._api.pools.read_pool(served.name)
        if pool is None:
            return f"work pool {served.name} does not exist any more"
        if pool.type not in (PROCESS, AGENT):  # its jobs are for a container, or for somebody else's machine
            return f"work pool {served.name} is of type {pool.type} by now"
        if record.deployment_id is None:
            return "it has no deployment: a flow that is submitted to a work pool by itself cannot be run here"
        run = await self._api.read_run(record.id)
        deployment = await self._api.pools.deployment(record.deployment_id)
        flow = await self._api.read_flow(deployment.flow_id) if deployment is not None else None
        if run is None or deployment is None or flow is None:
            return "its deployment does not exist any more"
        environment = self._environments.layers(served.settings.run)
        if isinstance(environment, str):
            return environment
        base, from_file = environment
        return _Facts(
            served=served,
            pool=pool,
            run=replace(run, pool=record.pool, queue=record.queue),
            deployment=deployment,
            flow=flow,
            base=base,
            from_file=from_file,
        )

    # --- its job -----------------------------------------------------------------------------------------------------

    async def _job(self, facts: _Facts) -> ProcessJob | Unresolvable:
        if facts.pool.type == AGENT:
            return await self._agents_job(facts)
        sources = Sources(
            pool=facts.pool.name,
            template=facts.pool.base_job_template or process_template(),
            deployment=facts.full_name,
            deployment_variables=facts.deployment.job_variables,
            run_variables=facts.run.job_variables,
            environment={**facts.base, **facts.from_file, **facts.served.settings.run.environment},
            context=run_context(facts.run, flow=facts.flow),
        )
        found: dict[Lookup, BlockDocument | Variable | None] = {}
        while wanted := lookups(sources, found) - found.keys():
            for lookup in wanted:
                found[lookup] = await self._look_up(lookup)
        resolved = resolve(sources, found)
        if not isinstance(resolved, Resolved):
            return resolved
        return process_job(resolved.configuration, sources=resolved.sources)

    async def _agents_job(self, facts: _Facts) -> ProcessJob | Unresolvable:
        block_id = facts.deployment.infrastructure_document_id
        block = await self._api.pools.block_by_id(block_id) if block_id is not None else None
        if block_id is not None and block is None:
            return Unresolvable(f"deployment {facts.full_name}'s infrastructure block does not exist any more")
        overrides = {**facts.deployment.job_variables, **facts.run.job_variables}
        return agent_job(block, deployment=facts.full_name, overrides=overrides)

    async def _look_up(self, lookup: Lookup) -> BlockDocument | Variable | None:
        match lookup:
            case BlockNamed():
                return await self._api.pools.block_by_name(lookup.type_slug, lookup.name)
            case BlockWithId():
                return await self._api.pools.block_by_id(lookup.id)
            case VariableNamed():
                return await self._api.pools.variable(lookup.name)


def _not_served(record: RunRecord) -> str:
    return f"work pool {record.pool} is not served by this host any more"
