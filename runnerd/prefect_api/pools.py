"""The calls about work pools: pools, queues, workers, the runs they offer, and what launching such a run needs.

As in `client`: every call may raise ApiAway, ApiDenied or ApiRejected, asks once, and is safe to repeat; but what is
created a second time is refused as existing, the answer to the first having been lost perhaps. A name or an id that
can be nobody's is answered without a request. So is what the server reserves for itself: it would say 403, which is how
it denies credentials, and be taken for that.
"""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from itertools import count
from typing import TypeVar

from runnerd.core.place import Json
from runnerd.core.prefect import (
    BlockDocument,
    FlowRun,
    PoolDeployment,
    Variable,
    WorkerSeen,
    WorkerType,
    WorkPool,
    WorkQueue,
)
from runnerd.prefect_api.answers import ApiRefusal, ServerInfo
from runnerd.prefect_api.parse import parse_each
from runnerd.prefect_api.parse_pools import (
    parse_block,
    parse_placed_run,
    parse_pool,
    parse_pool_deployment,
    parse_queue,
    parse_variable,
    parse_worker,
    parse_worker_types,
    pool_run_parser,
)
from runnerd.prefect_api.reading import ABSENT, PAGE, REFUSED, Reader, in_path, is_uuid, refused, why_no_name
from runnerd.prefect_api.transport import Transport

_RESERVED = "prefect"  # in any case, at the start of a pool's name
_MAY_CHANGE = frozenset({"is_paused", "concurrency_limit"})  # of a reserved pool

T = TypeVar("T")


class PoolsApi:
    """The part of PrefectApi that is about work pools; `server` tells which Prefect answers."""

    def __init__(self, *, transport: Transport, reader: Reader, server: Callable[[], Awaitable[ServerInfo]]) -> None:
        self._transport = transport
        self._reader = reader
        self._server = server

    async def server(self) -> ServerInfo:
        """Which Prefect answers; see PrefectApi.server."""
        return await self._server()

    # --- pools ----------------------------------------------------------------------------------------------

    async def read_pool(self, name: str) -> WorkPool | None:
        """The pool of this name, None when there is none."""
        return await self._one("/work_pools/", in_path(name), "a work pool", parse_pool)

    async def all_pools(self) -> list[WorkPool]:
        """Every pool, by name."""
        return await self._every("/work_pools/filter", "work pools", parse_pool)

    async def create_pool(
        self,
        name: str,
        *,
        type: str,
        base_job_template: Mapping[str, Json] | None = None,
        description: str | None = None,
        is_paused: bool = False,
        concurrency_limit: int | None = None,
    ) -> WorkPool | ApiRefusal:
        """A new pool with its queue `default`. The server knows no default template: without one it has none."""
        if why := why_no_name(name) or _reserved(name, "created"):
            return ApiRefusal(reason=why)
        body: dict[str, Json] = {"name": name, "type": type, "description": description, "is_paused": is_paused}
        body["concurrency_limit"] = concurrency_limit
        if base_job_template is not None:
            body["base_job_template"] = dict(base_job_template)
        return await self._create("/work_pools/", body, "a new work pool", parse_pool)

    async def update_pool(self, name: str, changes: Mapping[str, Json]) -> bool | ApiRefusal:
        """Change what `changes` names: description, is_paused, concurrency_limit, base_job_template."""
        if set(changes) - _MAY_CHANGE and (why := _reserved(name, "changed but for its pause and its limit")):
            return ApiRefusal(reason=why)
        return await self._change("PATCH", "/work_pools/", in_path(name), dict(changes))

    async def delete_pool(self, name: str) -> bool | ApiRefusal:
        """Delete it with its queues; its deployments stay, and belong to no pool any more."""
        if why := _reserved(name, "deleted"):
            return ApiRefusal(reason=why)
        return await self._change("DELETE", "/work_pools/", in_path(name))

    # --- queues ---------------------------------------------------------------------------------------------

    async def queues(self, pool: str, *, prefixes: Sequence[str] = ()) -> list[WorkQueue]:
        """Its queues by priority, then name; with prefixes those whose name starts with one of them."""
        place = in_path(pool)
        if place is None:
            return []
        # The server takes case for nothing and `_` for any character, so what it finds is looked at again.
        chosen = {"work_queues": {"name": {"startswith_": list(prefixes)}}} if prefixes else {}
        found = await self._every(f"/work_pools/{place}/queues/filter", "work queues", parse_queue, **chosen)
        wanted = [queue for queue in found if not prefixes or queue.name.startswith(tuple(prefixes))]
        return sorted(wanted, key=lambda queue: (queue.priority, queue.name))

    async def read_queue(self, pool: str, name: str) -> WorkQueue | None:
        """The queue of this name in that pool, None when there is none."""
        return await self._one("/work_pools/", _queue_place(pool, name), "a work queue", parse_queue)

    async def create_queue(
        self,
        pool: str,
        name: str,
        *,
        description: str | None = None,
        is_paused: bool = False,
        concurrency_limit: int | None = None,
        priority: int | None = None,
    ) -> WorkQueue | ApiRefusal:
        """A new queue; without a priority it takes the first that is free, and a taken one moves the others down."""
        place, why = in_path(pool), why_no_name(name) or why_no_name(pool)
        if place is None or why:
            return ApiRefusal(reason=why or "")
        body: dict[str, Json] = {"name": name, "description": description, "is_paused": is_paused}
        body |= {"concurrency_limit": concurrency_limit, "priority": priority}
        return await self._create(f"/work_pools/{place}/queues", body, "a new work queue", parse_queue)

    async def update_queue(self, pool: str, name: str, changes: Mapping[str, Json]) -> bool | ApiRefusal:
        """Change what `changes` names: name, description, is_paused, concurrency_limit, priority."""
        return await self._change("PATCH", "/work_pools/", _queue_place(pool, name), dict(changes))

    async def delete_queue(self, pool: str, name: str) -> bool | ApiRefusal:
        """Delete it; a pool's default queue cannot be."""
        queue = await self.read_queue(pool, name)
        if queue is None:
            return False
        holder = await self.read_pool(pool)
        if holder is not None and holder.default_queue_id == queue.id:
            return ApiRefusal(reason=f"{name} is the default queue of {pool}, which goes only with its pool")
        return await self._change("DELETE", "/work_pools/", _queue_place(pool, name))

    # --- runs -----------------------------------------------------------------------------------------------

    async def runs(
        self,
        pool: str,
        *,
        queues: Mapping[str, str],
        before: datetime,
        after: datetime | None = None,
        limit: int | None = None,
    ) -> list[FlowRun] | None:
        """What the pool offers that falls due from `after` to `before`, both included; None: no such pool or queue.

        `queues` are names by ids; none of them stands for all. Pauses, limits and priorities are the server's doing,
        as is the order: priority, then time. It answers at most 200 at once. One unknown queue makes it refuse all.
        """
        place = in_path(pool)
        if place is None:
            return None
        if limit == 0:
            return []
        body: dict[str, Json] = {"scheduled_before": before.isoformat()}
        if queues:
            body["work_queue_names"] = sorted(set(queues.values()))
        if after is not None:
            body["scheduled_after"] = after.isoformat()
        if limit is not None:
            body["limit"] = min(limit, PAGE)
        path = f"/work_pools/{place}/get_scheduled_flow_runs"
        reply = await self._transport.request("POST", path, body=body, values=ABSENT, sure=True)
        return None if reply.status == 404 else self._reader.runs(reply, pool_run_parser(pool, queues))

    async def placed_run(self, run_id: str) -> FlowRun | None:
        """One flow run with the names of its pool and its queue; None when it does not exist (any more)."""
        return await self._one("/flow_runs/", run_id if is_uuid(run_id) else None, "a flow run", parse_placed_run)

    async def tagged_runs(self, queue_id: str, *, before: datetime, limit: int | None = None) -> list[FlowRun] | None:
        """What a legacy queue of 2.x picks by tags or deployments, the earliest first; None: no such queue."""
        if not is_uuid(queue_id):
            return None
        if limit == 0:
            return []
        body: dict[str, Json] = {"scheduled_before": before.isoformat()}
        if limit is not None:
            body["limit"] = min(limit, PAGE)
        path = f"/work_queues/{queue_id}/get_runs"
        reply = await self._transport.request("POST", path, body=body, values=ABSENT, sure=True)
        return None if reply.status == 404 else self._reader.runs(reply)

    # --- workers --------------------------------------------------------------------------------------------

    async def heartbeat(self, pool: str, *, worker: str, interval_s: int) -> bool:
        """Say that this worker lives, which registers it; False: no such pool. After three intervals it is OFFLINE."""
        place = in_path(pool)
        if place is None:
            return False
        body = {"name": worker, "heartbeat_interval_seconds": int(interval_s)}  # 3.x refuses 30.5
        path = f"/work_pools/{place}/workers/heartbeat"
        reply = await self._transport.request("POST", path, body=body, values=ABSENT)
        return reply.status != 404

    async def workers(self, pool: str) -> list[WorkerSeen]:
        """Every worker that the pool knows, the latest heartbeat first."""
        place = in_path(pool)
        return (
            [] if place is None else await self._every(f"/work_pools/{place}/workers/filter", "workers", parse_worker)
        )

    async def worker_types(self) -> dict[str, WorkerType]:
        """The types of workers that the server knows of, by name."""
        reply = await self._transport.request("GET", "/collections/views/aggregate-worker-metadata", sure=True)
        return self._reader.read("the types of workers", reply.data, parse_worker_types)

    # --- what launching a run needs -------------------------------------------------------------------------

    async def deployment(self, deployment_id: str) -> PoolDeployment | None:
        """The deployment of this id, None when there is none (any more)."""
        place = deployment_id if is_uuid(deployment_id) else None
        return await self._one("/deployments/", place, "a deployment", parse_pool_deployment)

    async def block_by_id(self, block_id: str) -> BlockDocument | None:
        """The block of this id with its secrets, None when there is none."""
        place = f"{block_id}?include_secrets=true" if is_uuid(block_id) else None
        return await self._one("/block_documents/", place, "a block", parse_block)

    async def block_by_name(self, type_slug: str, name: str) -> BlockDocument | None:
        """The block `type_slug/name` with its secrets, None when there is none."""
        slug, quoted = in_path(type_slug), in_path(name)
        place = f"{slug}/block_documents/name/{quoted}?include_secrets=true" if slug and quoted else None
        return await self._one("/block_types/slug/", place, "a block", parse_block)

    async def variable(self, name: str) -> Variable | None:
        """The variable of this name, None when there is none."""
        return await self._one("/variables/name/", in_path(name), "a variable", parse_variable)

    # --- what is noted at a run -----------------------------------------------------------------------------

    async def note_infrastructure(self, run_id: str, pid: str | None) -> None:
        """Say where the run's process is; nothing happens when the run does not exist (any more)."""
        if is_uuid(run_id):
            body = {"infrastructure_pid": pid}
            await self._transport.request("PATCH", f"/flow_runs/{run_id}", body=body, values=ABSENT)

    async def label_run(self, run_id: str, labels: Mapping[str, Json]) -> None:
        """Add labels to the run; 2.20 knows none, and is not asked: its 404 would read as a wrong URL."""
        # The server takes any JSON here, and then fails whenever a run with anything but a plain value is read.
        plain = {name: _plain(value) for name, value in labels.items() if value is not None}
        if plain and is_uuid(run_id) and (await self.server()).major >= 3:
            await self._transport.request("PATCH", f"/flow_runs/{run_id}/labels", body=plain, values=ABSENT)

    # --- kinds of requests ----------------------------------------------------------------------------------

    async def _one(self, above: str, place: str | None, what: str, parse: Callable[[Json], T]) -> T | None:
        if place is None:
            return None
        reply = await self._transport.request("GET", f"{above}{place}", values=ABSENT, sure=True)
        return None if reply.status == 404 else self._reader.read(what, reply.data, parse)

    async def _every(self, path: str, what: str, parse: Callable[[Json], T], **chosen: Json) -> list[T]:
        """All pages of a filter; nothing where what it filters does not exist."""
        found: list[T] = []
        for offset in count(0, PAGE):
            body = {**chosen, "limit": PAGE, "offset": offset}
            reply = await self._transport.request("POST", path, body=body, values=ABSENT, sure=True)
            if reply.status == 404:
                return []
            found += self._reader.read(what, reply.data, lambda data: parse_each(data, parse)[0])
            if len(reply.data) < PAGE:
                break
        return found

    async def _create(self, path: str, body: Json, what: str, parse: Callable[[Json], T]) -> T | ApiRefusal:
        reply = await self._transport.request("POST", path, body=body, values=REFUSED)
        return refused(reply) if reply.status >= 400 else self._reader.read(what, reply.data, parse)

    async def _change(self, method: str, above: str, place: str | None, body: Json = None) -> bool | ApiRefusal:
        if place is None:
            return False
        reply = await self._transport.request(method, f"{above}{place}", body=body, values=REFUSED)
        if reply.status == 404:
            return False
        return refused(reply) if reply.status >= 400 else True


def _queue_place(pool: str, name: str) -> str | None:
    holder, queue = in_path(pool), in_path(name)
    return f"{holder}/queues/{queue}" if holder and queue else None


def _plain(value: Json) -> str | int | float:
    if isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return json.dumps(value)


def _reserved(name: str, what: str) -> str | None:
    """Why the server would say 403, which is no matter of credentials."""
    if not name.lower().startswith(_RESERVED):
        return None
    return f"work pools whose names start with {_RESERVED!r} are Prefect's own, and cannot be {what}"
