"""The routes of work pools and queues. The peer that asks for a change is logged before the change is made.

Invariant: the path of a request names the pool and the queue; its body, which is checked here, holds the changes.
"""

from __future__ import annotations

from collections.abc import Mapping

from runnerd.control.contract import Host, HostPools
from runnerd.control.http.exchange import Reply, Request, json_reply
from runnerd.control.http.listener import RequestLog
from runnerd.control.http.problem import HttpProblem
from runnerd.control.routes.change_log import log_change
from runnerd.control.routes.resolve import Text, read_body, read_number, unwrap
from runnerd.core.numbers import HOURS_MAX, LIMIT_MAX
from runnerd.core.place import Json
from runnerd.core.prefect import NewPool, NewQueue
from runnerd.core.strict_json import read_json

_LEAST = {"concurrency_limit": 0, "priority": 1}
_POOL: Mapping[str, tuple[type, ...]] = {
    "base_job_template": (dict,),
    "concurrency_limit": (int,),
    "description": (Text,),
}
_QUEUE: Mapping[str, tuple[type, ...]] = {"concurrency_limit": (int,), "description": (Text,), "priority": (int,)}


class PoolRoutes:
    """Answers at once, also before adoption: pools are the API's, and no request here touches a run of this host."""

    def __init__(self, *, host: Host, log: RequestLog) -> None:
        self._host = host
        self._log = log

    @property
    def _pools(self) -> HostPools:
        return self._host.pools

    # --- reading --------------------------------------------------------------------------------------------------

    async def list_pools(self, request: Request) -> Reply:
        return json_reply(unwrap(await self._pools.pools()))

    async def get_pool(self, request: Request, pool: str) -> Reply:
        return json_reply(unwrap(await self._pools.pool(pool)))

    async def list_queues(self, request: Request, pool: str | None = None) -> Reply:
        return json_reply(unwrap(await self._pools.queues(pool)))

    async def get_queue(self, request: Request, pool: str, queue: str) -> Reply:
        return json_reply(unwrap(await self._pools.queue(pool, queue)))

    async def get_preview(self, request: Request, pool: str | None = None, queue: str | None = None) -> Reply:
        hours = read_number(request, "hours", least=1, most=HOURS_MAX) or 1
        return json_reply(unwrap(await self._pools.preview(pool, queue, hours=hours)))

    async def list_worker_types(self, request: Request) -> Reply:
        return json_reply(unwrap(await self._pools.worker_types()))

    async def get_worker_type(self, request: Request, name: str) -> Reply:
        return json_reply(unwrap(await self._pools.worker_type(name)))

    # --- changing -------------------------------------------------------------------------------------------------

    async def create_pool(self, request: Request) -> Reply:
        allowed = {**_POOL, "name": (str,), "type": (str,), "paused": (bool,), "update": (bool,)}
        its = _checked(read_body(request, allowed))
        update = bool(its["update"])
        new = NewPool(
            name=_name(its),
            type=its["type"] or None,
            base_job_template=its["base_job_template"],
            description=its["description"],
            is_paused=bool(its["paused"]),
            concurrency_limit=its["concurrency_limit"],
        )
        log_change(self._log, request, "create pool", pool=new.name, type=its["type"], update=update)
        made = unwrap(await self._pools.create_pool(new, update=update))
        return json_reply(made, status=201 if made["created"] else 200)

    async def create_queue(self, request: Request, pool: str) -> Reply:
        its = _checked(read_body(request, {**_QUEUE, "name": (str,)}))
        new = NewQueue(pool=pool, name=_name(its), **{member: its[member] for member in _QUEUE})
        log_change(self._log, request, "create queue", pool=pool, queue=new.name)
        return json_reply(unwrap(await self._pools.create_queue(new)), status=201)

    async def pause(self, request: Request, pool: str, queue: str | None = None) -> Reply:
        read_body(request, {})
        return await self._change(request, "pause", pool, queue, {"paused": True})

    async def resume(self, request: Request, pool: str, queue: str | None = None) -> Reply:
        read_body(request, {})
        return await self._change(request, "resume", pool, queue, {"paused": False})

    async def update(self, request: Request, pool: str, queue: str | None = None) -> Reply:
        allowed = _POOL if queue is None else _QUEUE
        given = _checked(read_body(request, allowed))
        named = read_json(request.body) if request.body else {}  # an absent member stays; null removes a limit
        changes = {member: value for member, value in given.items() if member in named}
        if not changes:
            raise HttpProblem(422, f"name what to change: {', '.join(allowed)}")
        for member, value in changes.items():
            if value is None and member != "concurrency_limit":
                raise HttpProblem(422, f"{member!r} cannot be null")
        return await self._change(request, "update", pool, queue, changes)

    async def _change(
        self, request: Request, verb: str, pool: str, queue: str | None, changes: Mapping[str, Json]
    ) -> Reply:
        self._log_change(request, verb, pool, queue, members=sorted(changes))
        if queue is None:
            return json_reply(unwrap(await self._pools.change_pool(pool, changes)))
        return json_reply(unwrap(await self._pools.change_queue(pool, queue, changes)))

    async def delete(self, request: Request, pool: str, queue: str | None = None) -> Reply:
        read_body(request, {})
        self._log_change(request, "delete", pool, queue)
        if queue is None:
            return json_reply(unwrap(await self._pools.delete_pool(pool)))
        return json_reply(unwrap(await self._pools.delete_queue(pool, queue)))

    def _log_change(self, request: Request, verb: str, pool: str, queue: str | None, **about: object) -> None:
        named = {"pool": pool} if queue is None else {"pool": pool, "queue": queue}
        log_change(self._log, request, f"{verb} {'pool' if queue is None else 'queue'}", **named, **about)


def _name(its: Mapping[str, Json]) -> str:
    name: str = its["name"] or ""
    if not name.strip():
        raise HttpProblem(422, "name it: name")
    return name


def _checked(its: dict[str, Json]) -> dict[str, Json]:
    """Check the range of the numbers among the members. Raises HttpProblem 422."""
    for member, least in _LEAST.items():
        value = its.get(member)
        if value is not None and not least <= value <= LIMIT_MAX:
            raise HttpProblem(422, f"{member!r} must be a whole number from {least} to {LIMIT_MAX}")
    return its
