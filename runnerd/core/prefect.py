"""Prefect's nouns, as its API tells of them: states, flow runs, deployments, work pools and queues.

Nothing here knows a JSON key: prefect_api/parse.py and prefect_api/parse_pools.py make these values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from runnerd.core.place import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What the flow's own interpreter told about one entrypoint."""

    flow_name: str
    description: str | None
    parameter_schema: Mapping[str, Json]  # as Prefect stores it: parameter_openapi_schema
    prefect_version: str
    file: str | None  # the file the flow came from, for the cache
    sha256: str | None = None  # of that file, taken before it was imported
    version: str | None = None  # the flow's own; a deployment without one registers this
    hooks: tuple[str, ...] | None = None  # those we might have to run (see machine.Hook); None: not asked yet
    # Stamps of all that the answer depends on, by path (see deployments/dependencies.py); None: from an older version.
    dependencies: Mapping[str, str] | None = None


IN_PROCESS = "in_process"  # an empirical_policy's retry_type
RESCHEDULE = "reschedule"


class StateType(StrEnum):
    """Prefect's state types (both majors). Names within a type vary and decide nothing here."""

    SCHEDULED = "SCHEDULED"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    CRASHED = "CRASHED"
    PAUSED = "PAUSED"
    CANCELLING = "CANCELLING"

    @property
    def terminal(self) -> bool:
        return self in (StateType.COMPLETED, StateType.FAILED, StateType.CANCELLED, StateType.CRASHED)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiState:
    """A flow run's state as the API told it."""

    type: StateType
    name: str
    message: str | None = None
    transition_id: str | None = None
    scheduled_time: datetime | None = None
    lease_id: str | None = None  # the slot of a deployment's concurrency limit (3.x)
    needs_process: bool = False  # paused, or awaiting a retry, inside the flow's process: no other can go on with it


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowRun:
    """A flow run as the API told it."""

    id: str
    name: str
    flow_id: str
    deployment_id: str | None
    state: ApiState
    next_scheduled_start_time: datetime | None = None
    expected_start_time: datetime | None = None
    parameters: Mapping[str, Json] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    auto_scheduled: bool = False
    run_count: int = 0
    pool: str | None = None  # the work pool that offered it
    queue: str | None = None  # and the work queue's name in that pool
    job_variables: Mapping[str, Json] = field(default_factory=dict)  # the run's own, over its deployment's
    policy: Mapping[str, Json] = field(default_factory=dict)  # Prefect's empirical_policy: retries and pauses

    @property
    def retries_in_process(self) -> bool:
        """Whether Prefect reserves the next retry for the process that failed, and offers it to no other."""
        return self.policy.get("retry_type") == IN_PROCESS


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentInfo:
    """A deployment as the API told it; `schedule_ids` are those of the schedules last sent, in their order."""

    id: str
    name: str
    flow_id: str
    paused: bool
    schedule_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A state we want the API to record."""

    type: StateType
    name: str | None = None  # None: the type's own name
    message: str | None = None
    scheduled_time: datetime | None = None  # for SCHEDULED only


class ApiCondition(StrEnum):
    """How things stand with the API: `degraded` answers but refuses us or errs, `unreachable` does not answer."""

    OK = "ok"
    DEGRADED = "degraded"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiHealth:
    condition: ApiCondition
    since: datetime
    detail: str


def due(run: FlowRun) -> datetime | None:
    """When the run is to start."""
    return run.next_scheduled_start_time or run.expected_start_time


PROCESS = "process"  # the worker's type that runnerd itself is
AGENT = "prefect-agent"  # 2.x: pools whose deployments name an infrastructure block
AGENT_POOL = "default-agent-pool"  # 2.x: where queues live that were made without a pool


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkPool:
    id: str
    name: str
    type: str
    description: str | None = None
    is_paused: bool = False
    concurrency_limit: int | None = None
    base_job_template: Mapping[str, Json] = field(default_factory=dict)
    status: str | None = None  # READY, NOT_READY, PAUSED
    default_queue_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkQueue:
    id: str
    name: str
    pool: str | None = None  # its pool's name, as far as the API told
    description: str | None = None
    is_paused: bool = False
    concurrency_limit: int | None = None
    priority: int = 1  # 1 is served first
    filter: Mapping[str, Json] | None = None  # 2.x: a legacy queue, which takes runs by tag or deployment
    last_polled: datetime | None = None
    status: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPool:
    """A work pool to be created."""

    name: str
    type: str | None = None  # None: PROCESS
    description: str | None = None
    is_paused: bool = False
    concurrency_limit: int | None = None
    base_job_template: Mapping[str, Json] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewQueue:
    """A work queue to be created."""

    pool: str
    name: str
    description: str | None = None
    is_paused: bool = False
    concurrency_limit: int | None = None
    priority: int | None = None  # None: the first free one


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSeen:
    """A worker as the pool knows it."""

    name: str
    status: str | None  # ONLINE, OFFLINE
    last_heartbeat: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerType:
    """A type of worker as the server's collection of integrations lists it."""

    type: str
    package: str  # on PyPI: prefect, prefect-docker, ...
    template: Mapping[str, Json]  # its default base job template
    description: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolDeployment:
    """A deployment of a pool, as somebody else registered it: what launching one of its runs needs."""

    id: str
    name: str
    flow_id: str
    version: str | None = None
    job_variables: Mapping[str, Json] = field(default_factory=dict)  # 2.20: infra_overrides too
    infrastructure_document_id: str | None = None  # 2.x
    storage_document_id: str | None = None  # 2.x
    updated: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockDocument:
    """A block with its secrets."""

    id: str
    name: str | None
    type_slug: str
    data: Mapping[str, Json]

    def __repr__(self) -> str:
        return f"BlockDocument({self.type_slug}/{self.name})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A variable of the workspace; any JSON in 3.x, text in 2.x."""

    name: str
    value: Json
