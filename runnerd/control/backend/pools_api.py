"""The calls of Prefect's API that the work pools of the control API need. Protocols only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from runnerd.core.place import Json
from runnerd.core.prefect import DeploymentInfo, FlowRun, WorkerSeen, WorkerType, WorkPool, WorkQueue
from runnerd.prefect_api.answers import Refused


class Pools(Protocol):
    async def read_pool(self, name: str) -> WorkPool | None: ...
    async def all_pools(self) -> list[WorkPool]: ...
    async def create_pool(
        self,
        name: str,
        *,
        type: str,
        base_job_template: Mapping[str, Json] | None = None,
        description: str | None = None,
        is_paused: bool = False,
        concurrency_limit: int | None = None,
    ) -> WorkPool | Refused: ...
    async def update_pool(self, name: str, changes: Mapping[str, Json]) -> bool | Refused: ...
    async def delete_pool(self, name: str) -> bool | Refused: ...
    async def queues(self, pool: str) -> list[WorkQueue]: ...
    async def read_queue(self, pool: str, name: str) -> WorkQueue | None: ...
    async def create_queue(
        self,
        pool: str,
        name: str,
        *,
        description: str | None = None,
        concurrency_limit: int | None = None,
        priority: int | None = None,
    ) -> WorkQueue | Refused: ...
    async def update_queue(self, pool: str, name: str, changes: Mapping[str, Json]) -> bool | Refused: ...
    async def delete_queue(self, pool: str, name: str) -> bool | Refused: ...
    async def runs(
        self, pool: str, *, queues: Mapping[str, str], before: datetime, limit: int | None = None
    ) -> list[FlowRun] | None: ...
    async def tagged_runs(
        self, queue_id: str, *, before: datetime, limit: int | None = None
    ) -> list[FlowRun] | None: ...
    async def workers(self, pool: str) -> list[WorkerSeen]: ...
    async def worker_types(self) -> Mapping[str, WorkerType]: ...


class Api(Protocol):
    @property
    def pools(self) -> Pools: ...
    async def read_deployments(self, ids: Sequence[str]) -> list[DeploymentInfo]: ...
