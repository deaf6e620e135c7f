"""Answers the control API's requests about work pools and queues from Prefect's API, and changes both there.

Invariants: no state is kept between two requests. After a lost answer `ApiCaller` repeats all calls of a request: a
pool or queue that was missing at the first try and exists at the second was created by the first; a deleted one
likewise.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from datetime import datetime

from runnerd.control.backend.api_calls import ApiCaller
from runnerd.control.backend.pool_documents import pool_document, queue_document, type_document, whole_pool_document
from runnerd.control.backend.previews import Previews
from runnerd.control.backend.refusals import (
    no_pool,
    no_queue,
    other_type,
    pool_is_there,
    queue_is_there,
    refused,
    unknown_type,
)
from runnerd.control.contract import Refused
from runnerd.core.place import Json
from runnerd.core.prefect import AGENT, AGENT_POOL, PROCESS, NewPool, NewQueue, WorkPool
from runnerd.prefect_api.answers import ApiRefusal
from runnerd.prefect_api.client import PrefectApi

_CHANGEABLE = ("base_job_template", "concurrency_limit", "description", "is_paused")  # by the API's keys


class PoolsBackend:
    """Implements runnerd.control.contract.HostPools. `served`: the pools that the configuration of this host names."""

    def __init__(
        self,
        *,
        api: PrefectApi,
        call_api: ApiCaller,
        now: Callable[[], datetime],
        served: Callable[[], Collection[str]],
    ) -> None:
        self._api = api
        self._call_api = call_api
        self._previews = Previews(api=api, now=now)
        self._served = served

    # --- reading --------------------------------------------------------------------------------------------------

    async def pools(self) -> Json | Refused:
        async def read() -> Json:
            pools = sorted(await self._api.pools.all_pools(), key=lambda pool: pool.name)
            return [self._document(pool) for pool in pools]

        return await self._call_api(read, reads=True)

    async def pool(self, name: str) -> Json | Refused:
        async def read() -> Json | Refused:
            pool = await self._api.pools.read_pool(name)
            if pool is None:
                return no_pool(name)
            queues, workers = await self._api.pools.queues(name), await self._api.pools.workers(name)
            return whole_pool_document(pool, served=pool.name in self._served(), queues=queues, workers=workers)

        return await self._call_api(read, reads=True)

    async def preview(self, pool: str | None, queue: str | None, *, hours: int) -> Json | Refused:
        """List the runs that one pool, every pool or one queue would deliver within `hours`."""

        async def read() -> Json | Refused:
            found = await self._pools(pool)
            return found if isinstance(found, Refused) else await self._previews.document(found, queue, hours=hours)

        return await self._call_api(read, reads=True)

    async def queues(self, pool: str | None) -> Json | Refused:
        async def read() -> Json | Refused:
            found = await self._pools(pool)
            if isinstance(found, Refused):
                return found
            return [queue_document(queue, its) for its in found for queue in await self._api.pools.queues(its.name)]

        return await self._call_api(read, reads=True)

    async def queue(self, pool: str, name: str) -> Json | Refused:
        return await self._call_api(lambda: self._queue_document(pool, name), reads=True)

    async def worker_types(self) -> Json | Refused:
        async def read() -> Json:
            types = await self._api.pools.worker_types()
            return [type_document(types[name]) for name in sorted(types)]

        return await self._call_api(read, reads=True)

    async def worker_type(self, name: str) -> Json | Refused:
        async def read() -> Json | Refused:
            types = await self._api.pools.worker_types()
            if name not in types:
                return Refused(status=404, detail=unknown_type(name, types))
            return {**type_document(types[name]), "base_job_template": dict(types[name].template)}

        return await self._call_api(read, reads=True)

    # --- changing pools -------------------------------------------------------------------------------------------

    async def create_pool(self, new: NewPool, *, update: bool) -> Json | Refused:
        asked = False

        async def make() -> Json | Refused:
            nonlocal asked
            there = await self._api.pools.read_pool(new.name)
            if there is not None and not update:
                return {**self._document(there), "created": True} if asked else pool_is_there(new.name)
            if there is not None and new.type not in (None, there.type):
                return other_type(there, new.type)
            kind = there.type if there else new.type or PROCESS
            template = await self._template(kind) if new.base_job_template is None else new.base_job_template
            if isinstance(template, Refused):
                return template
            whole = replace(new, type=kind, base_job_template=template)
            if there is not None:
                return _with(
                    await self._change(new.name, {key: getattr(whole, key) for key in _CHANGEABLE}), created=False
                )
            asked = True
            made = await self._api.pools.create_pool(whole)
            return refused(made) if isinstance(made, ApiRefusal) else {**self._document(made), "created": True}

        return await self._call_api(make)

    async def change_pool(self, name: str, changes: Mapping[str, Json]) -> Json | Refused:
        return await self._call_api(lambda: self._change(name, _api_keys(changes)))

    async def delete_pool(self, name: str) -> Json | Refused:
        was: Json = None

        async def end() -> Json | Refused:
            nonlocal was
            pool = await self._api.pools.read_pool(name)
            if pool is None:
                return was or no_pool(name)
            was = self._document(pool)
            done = await self._api.pools.delete_pool(name)
            return refused(done) if isinstance(done, ApiRefusal) else was

        return await self._call_api(end)

    # --- changing queues ------------------------------------------------------------------------------------------

    async def create_queue(self, new: NewQueue) -> Json | Refused:
        asked = False

        async def make() -> Json | Refused:
            nonlocal asked
            pool = await self._pool_for_queue(new.pool)
            if isinstance(pool, Refused):
                return pool
            there = await self._api.pools.read_queue(new.pool, new.name)
            if there is not None:
                return queue_document(there, pool) if asked else queue_is_there(new.pool, new.name)
            asked = True
            made = await self._api.pools.create_queue(new)
            return refused(made) if isinstance(made, ApiRefusal) else queue_document(made, pool)

        return await self._call_api(make)

    async def change_queue(self, pool: str, name: str, changes: Mapping[str, Json]) -> Json | Refused:
        async def change() -> Json | Refused:
            done = await self._api.pools.update_queue(pool, name, _api_keys(changes))
            return refused(done) if isinstance(done, ApiRefusal) else await self._queue_document(pool, name)

        return await self._call_api(change)

    async def delete_queue(self, pool: str, name: str) -> Json | Refused:
        was: Json = None

        async def end() -> Json | Refused:
            nonlocal was
            found = await self._queue_document(pool, name)
            if isinstance(found, Refused):
                return was or found
            was = found
            done = await self._api.pools.delete_queue(pool, name)
            return refused(done) if isinstance(done, ApiRefusal) else was

        return await self._call_api(end)

    # --- inside ---------------------------------------------------------------------------------------------------

    def _document(self, pool: WorkPool) -> dict[str, Json]:
        return pool_document(pool, served=pool.name in self._served())

    async def _change(self, name: str, changes: Mapping[str, Json]) -> Json | Refused:
        done = await self._api.pools.update_pool(name, changes)
        if isinstance(done, ApiRefusal):
            return refused(done)
        pool = await self._api.pools.read_pool(name)
        return no_pool(name) if pool is None else self._document(pool)

    async def _template(self, kind: str) -> Json | Refused:
        types = await self._api.pools.worker_types()
        if kind not in types:
            return Refused(status=404, detail=unknown_type(kind, types))
        return dict(types[kind].template)

    async def _pools(self, name: str | None) -> list[WorkPool] | Refused:
        if name is None:
            return sorted(await self._api.pools.all_pools(), key=lambda pool: pool.name)
        pool = await self._api.pools.read_pool(name)
        return no_pool(name) if pool is None else [pool]

    async def _pool_for_queue(self, name: str) -> WorkPool | Refused:
        """Read a queue's pool; create AGENT_POOL when it is missing, as Prefect's client does."""
        pool = await self._api.pools.read_pool(name)
        if pool is None and name == AGENT_POOL:
            await self._api.pools.create_pool(NewPool(name=name, type=AGENT, base_job_template={}))
            pool = await self._api.pools.read_pool(name)
        return pool or no_pool(name)

    async def _queue_document(self, pool: str, name: str) -> Json | Refused:
        its = await self._api.pools.read_pool(pool)
        if its is None:
            return no_pool(pool)
        queue = await self._api.pools.read_queue(pool, name)
        return no_queue(pool, name) if queue is None else queue_document(queue, its)


def _api_keys(changes: Mapping[str, Json]) -> dict[str, Json]:
    """Rename the keys of a document to the API's."""
    return {"is_paused" if key == "paused" else key: value for key, value in changes.items()}


def _with(document: Json | Refused, **more: Json) -> Json | Refused:
    return document if isinstance(document, Refused) else {**document, **more}
