"""Holds what Prefect's API has: states, flow runs, deployments, work pools and queues.

This module knows no JSON key: prefect_api/parse.py and prefect_api/parse_pools.py make these values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from runnerd.core.place import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """Holds the result of inspecting one entrypoint in the flow's own interpreter."""

    flow_name: str
    description: str | None
    parameter_schema: Mapping[str, Json]  # as Prefect stores it: parameter_openapi_schema
    prefect_version: str
    file: str | None  # the file with the flow, for the cache
    sha256: str | None = None  # of that file, computed before the import
    version: str | None = None  # of the flow; registered for a deployment without a version
    hooks: tuple[str, ...] | None = None  # the hooks of the flow by machine.Hook; None: not inspected yet
    # Stamps of all that the answer depends on, by path (see deployments/dependencies.py); None: from an older version.
    dependencies: Mapping[str, str] | None = None


IN_PROCESS = "in_process"  # an empirical_policy's retry_type
RESCHEDULE = "reschedule"


class StateType(StrEnum):
    """Names Prefect's state types (both majors). State names within a type vary, and decide nothing here."""

    SCHEDULED = "SCHEDULED"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    CRASHED = "CRASHED"
    PAUSED = "PAUSED"
    CANCELLING = "CANCELLING"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiState:
    """Describes a flow run's state in the API."""

    type: StateType
    name: str
    message: str | None = None
    transition_id: str | None = None
    scheduled_time: datetime | None = None
    lease_id: str | None = None  # the slot of a deployment's concurrency limit (3.x)
    since: datetime | None = None  # when the run entered the state
    pause_until: datetime | None = None  # when a pause inside the flow's process ends by itself, in a failure
    needs_process: bool = False  # paused, or awaiting a retry, inside the flow's process: no other can go on with it


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowRun:
    """Describes a flow run in the API."""

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
    pool: str | None = None  # the work pool that offers the run
    queue: str | None = None  # the name of its work queue in that pool
    job_variables: Mapping[str, Json] = field(default_factory=dict)  # of the run; they override its deployment's
    policy: Mapping[str, Json] = field(default_factory=dict)  # Prefect's empirical_policy: retries and pauses
    created: datetime | None = None
    parent_task_run_id: str | None = None  # the task run by which another flow run has created this one

    @property
    def retries_in_process(self) -> bool:
        """Whether Prefect reserves the next retry for the process that failed, and offers it to no other."""
        return self.policy.get("retry_type") == IN_PROCESS


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentInfo:
    """Describes a deployment in the API.

    `schedule_ids` are those of the schedules last sent, in their order. `is_new`: the request has created it.
    """

    id: str
    name: str
    flow_id: str
    paused: bool
    schedule_ids: tuple[str, ...] = ()
    is_new: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Describes a state to be proposed to the API."""

    type: StateType
    name: str | None = None  # None: the type's own name
    message: str | None = None
    scheduled_time: datetime | None = None  # for SCHEDULED only


class ApiCondition(StrEnum):
    """Says whether the API answers. `degraded`: with denials or errors; `unreachable`: not at all.

    `maintenance`: with the request to wait until its maintenance is over, which is no failure.
    """

    OK = "ok"
    MAINTENANCE = "maintenance"
    DEGRADED = "degraded"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiHealth:
    condition: ApiCondition
    since: datetime
    detail: str

    @property
    def words(self) -> str:
        """Say how the API is, where it is not ok."""
        return self.detail if self.condition is ApiCondition.MAINTENANCE else f"{self.condition.value}: {self.detail}"


def due(run: FlowRun) -> datetime | None:
    """Return the time at which the run is due."""
    return run.next_scheduled_start_time or run.expected_start_time


PROCESS = "process"  # the type of worker that runnerd implements
AGENT = "prefect-agent"  # 2.x: the type of pools whose deployments name an infrastructure block
AGENT_POOL = "default-agent-pool"  # 2.x: the pool of queues that were created without a pool


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
    # To be shown only: a pool that is otherwise the same is the same.
    created: datetime | None = field(default=None, compare=False)
    updated: datetime | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkQueue:
    id: str
    name: str
    pool: str | None = None  # the name of its pool; None when the API left it out
    description: str | None = None
    is_paused: bool = False
    concurrency_limit: int | None = None
    priority: int = 1  # 1 is served first
    filter: Mapping[str, Json] | None = None  # 2.x: of a legacy queue, which selects runs by tag or deployment
    last_polled: datetime | None = None
    status: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPool:
    """Describes a work pool to be created."""

    name: str
    type: str | None = None  # None: PROCESS
    description: str | None = None
    is_paused: bool = False
    concurrency_limit: int | None = None
    base_job_template: Mapping[str, Json] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewQueue:
    """Describes a work queue to be created."""

    pool: str
    name: str
    description: str | None = None
    is_paused: bool = False
    concurrency_limit: int | None = None
    priority: int | None = None  # None: the first free one


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSeen:
    """Describes a worker in a work pool."""

    name: str
    status: str | None  # ONLINE, OFFLINE
    last_heartbeat: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerType:
    """Describes a type of worker from the server's collection of integrations."""

    type: str
    package: str  # on PyPI: prefect, prefect-docker, ...
    template: Mapping[str, Json]  # its default base job template
    description: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolDeployment:
    """Holds what launching a run of a pool needs from its deployment, which others have registered."""

    id: str
    name: str
    flow_id: str
    version: str | None = None
    job_variables: Mapping[str, Json] = field(default_factory=dict)  # 2.20: infra_overrides too
    infrastructure_document_id: str | None = None  # 2.x
    pool: str | None = None
    queue: str | None = None
    tags: tuple[str, ...] = ()
    updated: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockDocument:
    """Holds a block with its secrets; the repr has none of them."""

    id: str
    name: str | None
    type_slug: str
    data: Mapping[str, Json]

    def __repr__(self) -> str:
        return f"BlockDocument({self.type_slug}/{self.name})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """Holds a variable of the workspace; its value is any JSON in 3.x, text in 2.x."""

    name: str
    value: Json
