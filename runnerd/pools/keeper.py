"""Keeps each served pool: makes what is missing of it, knows it, and tells it that this host is there.

Invariants: a pool that cannot be served costs nothing but itself, and is looked at again for ever; what is known of it
is at most SYNC_S old while the API answers, and stays as it was while it does not; nothing is created where the
configuration says `create: false`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Protocol

from runnerd.core.errors import ApiAway, ApiDenied, ApiError, ApiRejected
from runnerd.core.machine import RunRecord
from runnerd.core.place import Problem
from runnerd.core.prefect import PROCESS, WorkerType, WorkPool, WorkQueue
from runnerd.core.problems import Problems
from runnerd.core.wakes import Wakes
from runnerd.log.alerts import Alert
from runnerd.pools.creating import MakingApi, missing_queues, pool_or_why, unserved
from runnerd.pools.table import PoolTable, Served, Service, served_document
from runnerd.prefect_api.answers import ServerInfo
from runnerd.system.ambient import Ambient

SYNC_S = 15.0
HEARTBEAT_S = 30  # what Prefect's workers say; after three of them without one, a worker is OFFLINE
GOODBYE_S = 1
_GOODBYE_BOUND_S = 5.0
_PULSE_S = 3600.0  # one look is a dozen requests, and each may take minutes


class KeepingApi(MakingApi, Protocol):
    """What keeping a pool asks of Prefect; `server` says which one answers."""

    async def server(self) -> ServerInfo: ...

    async def heartbeat(self, pool: str, *, worker: str, interval_s: int) -> bool: ...


class Other(Protocol):
    """Prefect's own worker, for a pool of a type that is not ours."""

    def want(self, served: Served, *, kind: WorkerType | None, server: ServerInfo) -> None: ...
    async def run(self) -> None: ...
    async def stop(self) -> None: ...
    @property
    def problem(self) -> str | None: ...
    def document(self) -> Mapping[str, Any]: ...


class PoolKeeper:
    """`run` for ever. `other` makes what keeps a worker of Prefect's own."""

    def __init__(
        self,
        *,
        api: KeepingApi,
        table: PoolTable,
        other: Callable[[Served], Other],
        leftovers: Callable[[Collection[str]], Coroutine[Any, Any, object]],
        worker: Callable[[], str],
        wakes: Wakes,
        ambient: Ambient,
        problems: Problems,
    ) -> None:
        self._api = api
        self._table = table
        self._make_other = other
        self._end_leftovers = leftovers
        self._worker = worker
        self._wakes = wakes
        self._now = ambient.now
        self._backoff = ambient.backoff
        self._pulse = ambient.pulse
        self._log = ambient.log
        self._wake: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._others: dict[str, tuple[Other, asyncio.Task[None]]] = {}
        self._kinds: Mapping[str, WorkerType] = {}
        self._told: dict[str, str | None] = {}  # the problem that was last logged
        self._greeted: set[str] = set()  # pools that have heard of this host
        self._stopped = False
        self._group = asyncio.TaskGroup()  # entered by `run`
        self.tried = asyncio.Event()  # of every pool it is known whether it can be served
        problems.register(self._reported)

    async def run(self) -> None:
        """Serve all of them for ever."""
        async with self._group:
            self._group.create_task(self._end_workers_of_others(), name="workers of pools that are not served any more")
            while True:
                self._wakes.pools.clear()
                await self._match()
                self._note_tried()
                await self._wakes.pools.wait()

    async def _end_workers_of_others(self) -> None:
        """An earlier daemon kept them, and nobody wants them now."""
        await self._end_leftovers(self._table.names())

    async def _match(self) -> None:
        """One task for each pool that is wanted, none for others."""
        wanted = {served.name for served in self._table.entries()}
        for name in [name for name in self._tasks if name not in wanted]:
            task = self._tasks.pop(name)
            task.cancel()
            await asyncio.wait({task})
            self._wake.pop(name).set()
            await self._leave(name)
        for name in () if self._stopped else wanted:
            if name in self._tasks:
                self._wake[name].set()
                continue
            self._wake[name] = asyncio.Event()
            self._tasks[name] = self._group.create_task(self._keep_one(name), name=f"pool {name}")

    def outdated(self, name: str) -> None:
        """Look at this pool now: it is not as it was known."""
        if name in self._wake:
            self._wake[name].set()

    async def _keep_one(self, name: str) -> None:
        backoff = self._backoff()
        while True:
            wake = self._wake[name]
            wake.clear()
            self._pulse.beat(f"pool {name}", within_s=_PULSE_S)
            wait_s = SYNC_S
            served = self._table.get(name)
            try:
                if served is not None:
                    await self._sync(served)
                backoff.reset()
                self._note_tried(name)
            except ApiRejected as error:
                self._note(served, problem=str(error))
                self._note_tried(name)
            except (ApiAway, ApiDenied) as error:  # the transport has said so
                wait_s = backoff.next_s(error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await wake.wait()

    def _note_tried(self, name: str | None = None) -> None:
        if name is not None:
            self._told.setdefault(name, None)
        if all(served.name in self._told for served in self._table.entries()):
            self.tried.set()

    # --- one look ----------------------------------------------------------------------------------------------------

    async def _sync(self, served: Served) -> None:
        server = await self._api.server()
        pool = await pool_or_why(self._api, served.settings, major=server.major)
        why = None if isinstance(pool, str) else unserved(pool, served.settings, major=server.major)
        if isinstance(pool, str) or why is not None:
            await self._dismiss_other(served.name)  # what it served is gone, or is to be something else
            return self._note(served, problem=pool if isinstance(pool, str) else why)
        queues = await missing_queues(self._api, served.settings)
        if isinstance(queues, str):
            return self._note(served, problem=queues)
        beat_at = await self._beat(served, pool)
        known = replace(served, pool=pool, queues=queues, problem=None, heartbeat_at=beat_at)
        if known.service is Service.OTHER:
            await self._serve_by_other(known, server)
        else:
            await self._dismiss_other(served.name)  # it was deleted, and made anew as one of ours
        self._put(served, known)

    async def _beat(self, served: Served, pool: WorkPool) -> datetime | None:
        if pool.type != PROCESS:
            return None
        self._greeted.add(pool.name)
        there = await self._api.heartbeat(pool.name, worker=self._worker(), interval_s=HEARTBEAT_S)
        return self._now() if there else served.heartbeat_at

    def _put(self, served: Served, known: Served) -> None:
        news = (known.open, _facts(known.queues)) != (served.open, _facts(served.queues))
        if not self._table.put(known, known=served):
            return
        self._say(known)
        if news and known.open:
            self._log.info("serving a work pool", pool=known.name, queues=[queue.name for queue in known.queues])
            self._wakes.poll_now()

    def _note(self, served: Served | None, *, problem: str | None) -> None:
        if served is None:
            return
        changed = replace(served, problem=problem)
        if self._table.put(changed, known=served):  # else it says nothing of what is wanted by now
            self._say(changed)

    def _say(self, served: Served) -> None:
        """Once, not at every look."""
        if served.problem is not None and self._told.get(served.name) != served.problem:
            about = {"pool": served.name, "why": served.problem}
            self._log.error("cannot serve a work pool", **about, alert=Alert.CONFIG_PROBLEM)
        self._told[served.name] = served.problem

    # --- Prefect's own workers ---------------------------------------------------------------------------------------

    async def _serve_by_other(self, served: Served, server: ServerInfo) -> None:
        if self._wakes.draining.is_set():  # what it takes on is not ours to end, so it is not to take on more
            if await self._dismiss_other(served.name):
                await self._say_goodbye(served.name)
            return
        assert served.pool is not None
        if served.pool.type not in self._kinds:  # a long list, and the same for as long as the server is
            self._kinds = await self._api.worker_types()
        kind = self._kinds.get(served.pool.type)
        if served.name not in self._others:
            other = self._make_other(served)
            self._greeted.add(served.name)
            other.want(served, kind=kind, server=server)
            task = self._group.create_task(other.run(), name=f"worker of pool {served.name}")
            self._others[served.name] = (other, task)
        else:
            self._others[served.name][0].want(served, kind=kind, server=server)

    def other(self, name: str) -> Other | None:
        """Prefect's own worker of that pool."""
        found = self._others.get(name)
        return found[0] if found is not None else None

    async def _dismiss_other(self, name: str) -> bool:
        found = self._others.get(name)
        if found is None:
            return False
        other, task = found
        task.cancel()
        await asyncio.wait({task})
        await other.stop()
        self._others.pop(name, None)  # only now: whoever is cancelled before leaves it to the next who dismisses it
        return True

    # --- leaving -----------------------------------------------------------------------------------------------------

    async def _leave(self, name: str) -> None:
        """The pool is not ours any more, or this host stops: say so, so that nobody waits three heartbeats."""
        self._told.pop(name, None)
        self._pulse.leave(f"pool {name}")
        await self._dismiss_other(name)
        await self._say_goodbye(name)

    async def _say_goodbye(self, name: str) -> None:
        """Also for Prefect's own worker, which does not."""
        if name not in self._greeted:
            return
        self._greeted.discard(name)
        with contextlib.suppress(ApiError, TimeoutError):
            async with asyncio.timeout(_GOODBYE_BOUND_S):
                await self._api.heartbeat(name, worker=self._worker(), interval_s=GOODBYE_S)

    async def stop(self) -> None:
        """This host stops: nobody is to think that its workers are there."""
        self._stopped = True
        names = list(self._tasks)
        tasks = [self._tasks.pop(name) for name in names]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await asyncio.gather(*(self._leave(name) for name in names))

    # --- for people --------------------------------------------------------------------------------------------------

    def _problem(self, served: Served) -> str | None:
        other = self.other(served.name)
        return served.problem or (other.problem if other is not None else None)

    def entries(self) -> list[Served]:
        """Every pool that the files name."""
        return self._table.entries()

    def _reported(self) -> list[Problem]:
        return [Problem(message=why, place=served.settings.place) for served, why in self.problems()]

    def problems(self) -> list[tuple[Served, str]]:
        """What keeps pools from being served."""
        found = ((served, self._problem(served)) for served in self._table.entries())
        return [(served, why) for served, why in found if why is not None]

    def documents(self, records: Sequence[RunRecord]) -> list[dict[str, Any]]:
        """Every pool as `status` shows it; `records` are the runs under way."""
        found = []
        for served in self._table.entries():
            running = sum(record.pool == served.name for record in records)
            other = self.other(served.name)
            worker = other.document() if other is not None else None
            found.append(served_document(served, running=running, worker=worker, problem=self._problem(served)))
        return found


def _facts(queues: Sequence[WorkQueue]) -> list[tuple[str, bool]]:
    return [(queue.id, queue.is_paused) for queue in queues]
