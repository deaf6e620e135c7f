"""Makes the calls about work pools: pools, queues, workers, the runs they offer, and what launching such a run needs.

As in `client`: every call may raise ApiAway, ApiDenied or ApiRejected, makes one request, and is safe to repeat, but
the server refuses to create a pool or queue again when the answer to the first request was lost. A name or an id that
no server can have is answered without a request; so is a pool's name that the server reserves, because there the
server answers 403 as to wrong credentials.
"""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import TypeVar

from runnerd.core.place import Json
from runnerd.core.prefect import (
    PROCESS,
    BlockDocument,
    FlowRun,
    NewPool,
    NewQueue,
    PoolDeployment,
    Variable,
    WorkerSeen,
    WorkerType,
    WorkPool,
    WorkQueue,
)
from runnerd.prefect_api.answers import ApiRefusal, Page, ServerInfo
from runnerd.prefect_api.dialect import RUN_LABELS_SINCE, is_before
from runnerd.prefect_api.failure_words import without_ids
from runnerd.prefect_api.paging import Pages
from runnerd.prefect_api.parse import parse_offer
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
from runnerd.prefect_api.reading import ABSENT, REFUSED, Reader, in_path, refused, why_no_name
from runnerd.prefect_api.transport import Transport
from runnerd.prefect_api.values import is_uuid
from runnerd.prefect_api.waiting_runs import WaitingRuns

_RESERVED = "prefect"  # in upper or lower case, at the start of a pool's name
_MAY_CHANGE = frozenset({"is_paused", "concurrency_limit"})  # of a reserved pool

T = TypeVar("T")


class PoolsApi:
    """Makes the calls of PrefectApi about work pools; `server` returns the version of Prefect's server.

    `waiting` has those about what waits in pools.
    """

    def __init__(
        self,
        *,
        transport: Transport,
        reader: Reader,
        pages: Pages,
        server: Callable[[], Awaitable[ServerInfo]],
    ) -> None:
        self._transport = transport
        self._reader = reader
        self._pages = pages
        self._server = server
        self.waiting = WaitingRuns(transport=transport, reader=reader, pages=pages)

    async def server(self) -> ServerInfo:
        """Read the server's version; see PrefectApi.server."""
        return await self._server()

    # --- pools ----------------------------------------------------------------------------------------------

    async def read_pool(self, name: str) -> WorkPool | None:
        """Read the pool of this name; None when there is none."""
        return await self._read_one("/work_pools/", in_path(name), "a work pool", parse_pool)

    async def all_pools(self) -> list[WorkPool]:
        """Read every pool, sorted by name."""
        return await self._pages.every("/work_pools/filter", "work pools", parse_pool)

    async def create_pool(self, new: NewPool) -> WorkPool | ApiRefusal:
        """Create a pool with its queue `default`; without a template in `new` the pool has none."""
        if why := why_no_name(new.name) or _reserved(new.name, "created"):
            return ApiRefusal(reason=why)
        body: dict[str, Json] = {
            "name": new.name,
            "type": new.type or PROCESS,
            "description": new.description,
            "is_paused": new.is_paused,
            "concurrency_limit": new.concurrency_limit,
        }
        if new.base_job_template is not None:
            body["base_job_template"] = dict(new.base_job_template)
        return await self._create("/work_pools/", body, "a new work pool", parse_pool)

    async def update_pool(self, name: str, changes: Mapping[str, Json]) -> bool | ApiRefusal:
        """Change what `changes` names: description, is_paused, concurrency_limit, base_job_template."""
        if set(changes) - _MAY_CHANGE and (why := _reserved(name, "changed but for its pause and its limit")):
            return ApiRefusal(reason=why)
        return await self._change("PATCH", "/work_pools/", in_path(name), dict(changes))

    async def delete_pool(self, name: str) -> bool | ApiRefusal:
        """Delete a pool with its queues; its deployments stay, without a pool."""
        if why := _reserved(name, "deleted"):
            return ApiRefusal(reason=why)
        return await self._change("DELETE", "/work_pools/", in_path(name))

    # --- queues ---------------------------------------------------------------------------------------------

    async def queues(self, pool: str, *, prefixes: Sequence[str] = ()) -> list[WorkQueue]:
        """Read a pool's queues, sorted by priority, then name; with prefixes only those whose name starts with one."""
        place = in_path(pool)
        if place is None:
            return []
        # The server ignores case and takes `_` for any character, so its answer is filtered again below.
        chosen = {"work_queues": {"name": {"startswith_": list(prefixes)}}} if prefixes else {}
        found = await self._pages.every(f"/work_pools/{place}/queues/filter", "work queues", parse_queue, **chosen)
        wanted = [queue for queue in found if not prefixes or queue.name.startswith(tuple(prefixes))]
        return sorted(wanted, key=lambda queue: (queue.priority, queue.name))

    async def read_queue(self, pool: str, name: str) -> WorkQueue | None:
        """Read the queue of this name in that pool; None when there is none."""
        return await self._read_one("/work_pools/", _queue_place(pool, name), "a work queue", parse_queue)

    async def create_queue(self, new: NewQueue) -> WorkQueue | ApiRefusal:
        """Create a queue; a priority that another queue has moves that queue and those below it down."""
        place, why = in_path(new.pool), why_no_name(new.name) or why_no_name(new.pool)
        if place is None or why:
            return ApiRefusal(reason=why or "")
        body: dict[str, Json] = {
            "name": new.name,
            "description": new.description,
            "is_paused": new.is_paused,
            "concurrency_limit": new.concurrency_limit,
            "priority": new.priority,
        }
        return await self._create(f"/work_pools/{place}/queues", body, "a new work queue", parse_queue)

    async def update_queue(self, pool: str, name: str, changes: Mapping[str, Json]) -> bool | ApiRefusal:
        """Change what `changes` names: name, description, is_paused, concurrency_limit, priority."""
        return await self._change("PATCH", "/work_pools/", _queue_place(pool, name), dict(changes))

    async def delete_queue(self, pool: str, name: str) -> bool | ApiRefusal:
        """Delete a queue; refused for the default queue of a pool."""
        queue = await self.read_queue(pool, name)
        if queue is None:
            return False
        holder = await self.read_pool(pool)
        if holder is not None and holder.default_queue_id == queue.id:
            return ApiRefusal(reason=f"{name} is the default queue of {pool}, which is deleted only with its pool")
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
    ) -> Page | None:
        """Read the runs that a pool offers, due from `after` to `before`, both included; None: no such pool or queue.

        `queues` maps ids to names; an empty map means every queue. The server applies pauses, limits and priorities,
        and sorts by priority, then time. It returns at most 200 runs, and none at all if one queue is unknown.
        """
        place = in_path(pool)
        if place is None:
            return None
        if limit == 0:
            return Page()
        body: dict[str, Json] = {"scheduled_before": before.isoformat()}
        if queues:
            body["work_queue_names"] = sorted(set(queues.values()))
        if after is not None:
            body["scheduled_after"] = after.isoformat()
        path = f"/work_pools/{place}/get_scheduled_flow_runs"
        return await self._pages.first(path, body, limit=limit, parse=pool_run_parser(pool, queues))

    async def placed_run(self, run_id: str) -> FlowRun | None:
        """Read one flow run with the names of its pool and its queue; None when there is none (any more)."""
        return await self._read_one("/flow_runs/", run_id if is_uuid(run_id) else None, "a flow run", parse_placed_run)

    async def tagged_runs(self, queue_id: str, *, before: datetime, limit: int | None = None) -> Page | None:
        """Read what a legacy queue of 2.x picks by tags or deployments, the earliest first; None: no such queue."""
        if not is_uuid(queue_id):
            return None
        if limit == 0:
            return Page()
        path, body = f"/work_queues/{queue_id}/get_runs", {"scheduled_before": before.isoformat()}
        return await self._pages.first(path, body, limit=limit, parse=parse_offer)

    # --- workers --------------------------------------------------------------------------------------------

    async def heartbeat(self, pool: str, *, worker: str, interval_s: int) -> bool:
        """Send a worker's heartbeat, which registers the worker; False: no such pool.

        The server calls a worker OFFLINE after three intervals without one.
        """
        place = in_path(pool)
        if place is None:
            return False
        body = {"name": worker, "heartbeat_interval_seconds": int(interval_s)}  # 3.x refuses 30.5
        reply = await self._transport.request("POST", _heartbeat_path(place), body=body, values=ABSENT)
        return reply.status != 404

    def note_heartbeat(self, pool: str) -> None:
        """Note in the health that the server has taken a heartbeat for this pool in another way than by a request."""
        place = in_path(pool)
        if place is not None:
            self._transport.note_readable(without_ids(f"POST {_heartbeat_path(place)}"))

    async def workers(self, pool: str) -> list[WorkerSeen]:
        """Read every worker of a pool, the latest heartbeat first."""
        place = in_path(pool)
        return (
            []
            if place is None
            else await self._pages.every(f"/work_pools/{place}/workers/filter", "workers", parse_worker)
        )

    async def worker_types(self) -> dict[str, WorkerType]:
        """Read the worker types of the server's collection, by name."""
        reply = await self._transport.request("GET", "/collections/views/aggregate-worker-metadata", sure=True)
        return self._reader.read("the types of workers", reply.data, parse_worker_types)

    # --- what launching a run needs -------------------------------------------------------------------------

    async def deployment(self, deployment_id: str) -> PoolDeployment | None:
        """Read the deployment of this id; None when there is none (any more)."""
        place = deployment_id if is_uuid(deployment_id) else None
        return await self._read_one("/deployments/", place, "a deployment", parse_pool_deployment)

    async def block_by_id(self, block_id: str) -> BlockDocument | None:
        """Read the block of this id with its secrets; None when there is none."""
        place = f"{block_id}?include_secrets=true" if is_uuid(block_id) else None
        return await self._read_one("/block_documents/", place, "a block", parse_block)

    async def block_by_name(self, type_slug: str, name: str) -> BlockDocument | None:
        """Read the block `type_slug/name` with its secrets; None when there is none."""
        slug, quoted = in_path(type_slug), in_path(name)
        place = f"{slug}/block_documents/name/{quoted}?include_secrets=true" if slug and quoted else None
        return await self._read_one("/block_types/slug/", place, "a block", parse_block)

    async def variable(self, name: str) -> Variable | None:
        """Read the variable of this name; None when there is none."""
        return await self._read_one("/variables/name/", in_path(name), "a variable", parse_variable)

    # --- what is stored at a run ----------------------------------------------------------------------------

    async def note_infrastructure(self, run_id: str, pid: str | None) -> None:
        """Record where the run's process is; does nothing when there is no such run (any more)."""
        if is_uuid(run_id):
            body = {"infrastructure_pid": pid}
            await self._transport.request("PATCH", f"/flow_runs/{run_id}", body=body, values=ABSENT)

    async def emit_event(self, event: Json) -> None:
        """Emit an event; not with 2.20, whose events are disabled unless an experimental setting enables them."""
        if (await self.server()).major >= 3:
            await self._transport.request("POST", "/events", body=[event])

    async def label_run(self, run_id: str, labels: Mapping[str, Json]) -> None:
        """Add labels to the run; not before 3.2, which has no such route and whose 404 would read as a wrong URL."""
        # The server accepts any JSON here, and then fails whenever it reads a run with a value that is not plain.
        plain = {name: _plain(value) for name, value in labels.items() if value is not None}
        if plain and is_uuid(run_id) and not is_before(await self.server(), RUN_LABELS_SINCE):
            await self._transport.request("PATCH", f"/flow_runs/{run_id}/labels", body=plain, values=ABSENT)

    # --- kinds of requests ----------------------------------------------------------------------------------

    async def _read_one(self, above: str, place: str | None, what: str, parse: Callable[[Json], T]) -> T | None:
        if place is None:
            return None
        reply = await self._transport.request("GET", f"{above}{place}", values=ABSENT, sure=True)
        return None if reply.status == 404 else self._reader.read(what, reply.data, parse)

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
    """Say why the server would answer 403, which is not about credentials here; None when it would not."""
    if not name.lower().startswith(_RESERVED):
        return None
    return f"work pools whose names start with {_RESERVED!r} are Prefect's own, and cannot be {what}"


def _heartbeat_path(place: str) -> str:
    return f"/work_pools/{place}/workers/heartbeat"
