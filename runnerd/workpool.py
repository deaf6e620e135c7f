"""The nouns of work pools, as the API tells of them. Pure.

Invariant: nothing here knows JSON's keys; prefect_api/pools.py makes these and nobody else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from runnerd.model import Json

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
