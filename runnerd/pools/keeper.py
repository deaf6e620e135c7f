"""Synchronises each served pool with the API: creates what is missing of it, reads it, and sends heartbeats for it.

Invariants: a pool that cannot be served hinders no other, and is checked again for ever; the table's entry of a pool is
at most SYNC_S old while the API answers (SYNC_WOKEN_S while its events tell of changes), and stays as it is while the
API does not; nothing is created where the configuration says `create: false`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from runnerd.core.errors import ApiAway, ApiDenied, ApiError, ApiRejected
from runnerd.core.machine import RunRecord
from runnerd.core.pace import Pace
from runnerd.core.place import Problem
from runnerd.core.prefect import WorkerType
from runnerd.core.problems import Problems
from runnerd.core.wakes import Wakes
from runnerd.files.bounded_calls import BoundedCalls
from runnerd.log.alerts import Alert
from runnerd.pools.creating import find_or_create_pool, find_or_create_queues, why_unservable
from runnerd.pools.heartbeats import HEARTBEAT_S, Heartbeats
from runnerd.pools.table import PoolService, PoolTable, Served, served_document
from runnerd.pools.turns import Turn
from runnerd.pools.worker_events import WorkerEvents
from runnerd.pools.workers.worker import PrefectWorker
from runnerd.prefect_api.answers import ServerInfo
from runnerd.prefect_api.pools import PoolsApi
from runnerd.system.ambient import Ambient
from runnerd.system.containment import Containment

SYNC_S = 30.0  # as Prefect's workers
SYNC_WOKEN_S = 90.0  # while events tell of changes
SYNC_GAP_S = 2.0  # at least, to a synchronisation because the pool has changed
_PULSE_S = 3600.0  # one synchronisation is a dozen requests, and each may take minutes


class PoolKeeper:
    """Runs one task for each served pool, and one Prefect worker for each pool of a type that runnerd does not run."""

    def __init__(
        self,
        *,
        api: PoolsApi,
        table: PoolTable,
        make_worker: Callable[[Served], PrefectWorker],
        end_leftovers: Callable[[Collection[str]], Coroutine[Any, Any, object]],
        heartbeats: Heartbeats,
        calls: BoundedCalls,
        job_problem: Callable[[str], str | None],
        events: WorkerEvents,
        pace: Pace,
        wakes: Wakes,
        ambient: Ambient,
        problems: Problems,
    ) -> None:
        """`end_leftovers` ends the Prefect workers that an earlier daemon ran for pools other than those named.

        `job_problem` says why the jobs of a pool are refused, if they are.
        """
        self._api = api
        self._table = table
        self._make_worker = make_worker
        self._end_leftovers = end_leftovers
        self._heartbeats = heartbeats
        self._calls = calls
        self._job_problem = job_problem
        self._events = events
        self._pace = pace
        self._wakes = wakes
        self._now, self._clock = ambient.now, ambient.clock
        self._backoff = ambient.backoff
        self._pulse = ambient.pulse
        self._log = ambient.log
        self._contained = Containment(log=ambient.log, loop="pools")
        self._pool_wakes: dict[str, asyncio.Event] = {}
        self._changed: set[str] = set()  # pools that have changed in the API
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._workers: dict[str, tuple[PrefectWorker, asyncio.Task[None]]] = {}
        self._worker_types: Mapping[str, WorkerType] = {}
        self._logged: dict[str, str | None] = {}  # by pool that was tried: the problem that was logged last
        self._stopped = False
        self._group = asyncio.TaskGroup()  # entered by `run`
        self._asked: dict[str, int] = {}  # by pool: the list of wanted pools for which the API last answered
        self._asked_another = asyncio.Event()
        self.tried = asyncio.Event()  # set once the API has answered for every pool, whether it can be served or not
        problems.register(self.placed_problems)

    async def run(self) -> None:
        """Serve all pools of the table for ever."""
        async with self._group:
            leftovers = self._end_leftovers(self._table.names())
            self._group.create_task(leftovers, name="workers of pools that are not served any more")
            while True:
                self._wakes.pools.clear()
                with self._contained.item("list of pools"):
                    await self._match_tasks()
                self._note_tried()
                await self._wakes.pools.wait()

    async def _match_tasks(self) -> None:
        """Run one task for each pool of the table, and none for others."""
        wanted = {served.name for served in self._table.entries()}
        for name in [name for name in self._tasks if name not in wanted]:
            task = self._tasks.pop(name)
            task.cancel()
            await asyncio.wait({task})
            self._pool_wakes.pop(name).set()
            await self._leave_pool(name)
        for name in () if self._stopped else wanted:
            if name in self._tasks:
                self._pool_wakes[name].set()
                continue
            self._pool_wakes[name] = asyncio.Event()
            self._tasks[name] = self._group.create_task(self._serve_pool(name), name=f"pool {name}")

    def outdated(self, name: str) -> None:
        """Synchronise this pool now: it has changed in the API."""
        if name in self._pool_wakes:
            self._changed.add(name)
            self._pool_wakes[name].set()

    async def _serve_pool(self, name: str) -> None:
        """Synchronise one pool for ever, and send heartbeats in between."""
        backoff, turn = self._backoff(), Turn(rest_s=HEARTBEAT_S)
        while True:
            served, listed = self._table.get(name), self._table.listed
            turn.begin(self._clock(), every_s=self._every_s(served), woken=self._pool_wakes[name].is_set())
            self._pool_wakes[name].clear()
            self._pulse.beat(f"pool {name}", within_s=_PULSE_S)
            try:
                with self._contained.item(f"pool {name}") as item:
                    if served is not None:
                        await (self._sync_pool(served) if turn.whole else self._only_beat(served))
                    backoff.reset()
                if item.why is not None:
                    self._note_problem(served, f"cannot use what the API says of the work pool: {item.why}")
                if turn.whole:
                    self._note_tried(name, listed)
            except ApiRejected as error:
                self._note_problem(served, str(error))
                self._note_tried(name, listed)
            except (ApiAway, ApiDenied) as error:  # logged by the client
                if turn.whole:
                    turn.put_off(self._clock() + backoff.next_s(error))
                    await self._beat_despite(served, error)
            await self._rest(name, turn)

    def _every_s(self, served: Served | None) -> float:
        well = served is not None and served.problem is None
        return self._pace.check_s(SYNC_S, woken_s=SYNC_WOKEN_S) if well else SYNC_S

    async def _rest(self, name: str, turn: Turn) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(turn.left_s(self._clock())):
                await self._pool_wakes[name].wait()
        if name in self._changed:  # however many events come; what this host wants itself does not wait
            await asyncio.sleep(max(0.0, turn.began + SYNC_GAP_S - self._clock()))
            self._changed.discard(name)

    def _note_tried(self, name: str | None = None, listed: int = 0) -> None:
        if name is not None:
            self._logged.setdefault(name, None)
            self._asked[name] = listed
            self._asked_another.set()
        if all(served.name in self._logged for served in self._table.entries()):
            self.tried.set()

    def unasked(self) -> list[str]:
        """Name the pools for which the API has not answered since the configuration in force lists them."""
        listed = self._table.listed
        return [one.name for one in self._table.entries() if self._asked.get(one.name) != listed]

    async def wait_until_asked(self) -> None:
        """Wait until the API has answered for every pool of the configuration in force."""
        while self.unasked():
            self._asked_another.clear()
            await self._asked_another.wait()

    # --- one synchronisation -----------------------------------------------------------------------------------------

    async def _sync_pool(self, served: Served) -> None:
        server = await self._api.server()
        pool = await find_or_create_pool(self._api, served.settings, major=server.major, calls=self._calls)
        why = None if isinstance(pool, str) else why_unservable(pool, served.settings, major=server.major)
        if isinstance(pool, str) or why is not None:
            await self._stop_worker(served.name)  # the pool is gone, or the settings want another type
            return self._note_problem(served, pool if isinstance(pool, str) else why)
        queues = await find_or_create_queues(self._api, served.settings)
        if isinstance(queues, str):
            return self._note_problem(served, queues)
        beat_at = await self._heartbeats.send(served, pool, on_change=partial(self.outdated, served.name))
        latest = replace(served, pool=pool, queues=queues, problem=None, heartbeat_at=beat_at)
        if latest.service is PoolService.OTHER:
            await self._serve_by_worker(latest, server)
        else:
            await self._stop_worker(served.name)  # the pool was deleted, and created again as a type that runnerd runs
        self._put(served, latest)

    async def _only_beat(self, served: Served) -> None:
        if served.pool is not None and served.problem is None:
            beat_at = await self._heartbeats.send(served, served.pool, on_change=partial(self.outdated, served.name))
            self._table.put(replace(served, heartbeat_at=beat_at), known=served)

    async def _beat_despite(self, served: Served | None, error: ApiError) -> None:
        """Send a heartbeat although the API does not want to be asked about the pool now."""
        refused = isinstance(error, ApiAway) and not error.maintenance and (error.answered or error.retry_after_s)
        if served is not None and refused:
            with contextlib.suppress(ApiError), self._contained.item(f"heartbeat of pool {served.name}"):
                await self._only_beat(served)

    def _put(self, served: Served, latest: Served) -> None:
        """Replace the entry of a pool, and have the pool polled at once if other runs may start by that."""
        changed = latest.openings != served.openings
        if not self._table.put(latest, known=served):
            return
        self._log_problem(latest)
        if latest.heartbeat_at is not None and served.heartbeat_at is None:
            self._events.note_started(latest.name)
        if changed and latest.open:
            self._log.info("serving a work pool", pool=latest.name, queues=[queue.name for queue in latest.queues])
            self._wakes.poll_now()

    def _note_problem(self, served: Served | None, problem: str | None) -> None:
        if served is None:
            return
        changed = replace(served, problem=problem)
        if self._table.put(changed, known=served):  # else the problem is one of settings that a reload has replaced
            self._log_problem(changed)

    def _log_problem(self, served: Served) -> None:
        """Log the problem once, not at every synchronisation."""
        if served.problem is not None and self._logged.get(served.name) != served.problem:
            about = {"pool": served.name, "why": served.problem}
            self._log.error("cannot serve a work pool", **about, alert=Alert.CONFIG_PROBLEM)
        self._logged[served.name] = served.problem

    # --- Prefect's own workers ---------------------------------------------------------------------------------------

    async def _serve_by_worker(self, served: Served, server: ServerInfo) -> None:
        """Run a Prefect worker for the pool, unless this host drains: its runs are not the daemon's to end."""
        if self._wakes.draining.is_set():
            if await self._stop_worker(served.name):
                await self._heartbeats.say_goodbye(served.name)
            return
        assert served.pool is not None
        if served.pool.type not in self._worker_types:  # a long list that one server never changes
            self._worker_types = await self._api.worker_types()
        kind = self._worker_types.get(served.pool.type)
        if served.name not in self._workers:
            worker = self._make_worker(served)
            self._heartbeats.announce(served.name)
            await worker.want(served, kind=kind, server=server)
            task = self._group.create_task(worker.run(), name=f"worker of pool {served.name}")
            self._workers[served.name] = (worker, task)
        else:
            await self._workers[served.name][0].want(served, kind=kind, server=server)

    def worker(self, name: str) -> PrefectWorker | None:
        """Return the Prefect worker of that pool; None when it has none."""
        found = self._workers.get(name)
        return found[0] if found is not None else None

    async def _stop_worker(self, name: str) -> bool:
        """Stop the Prefect worker of that pool; False when it has none."""
        found = self._workers.get(name)
        if found is None:
            return False
        worker, task = found
        task.cancel()
        await asyncio.wait({task})
        await worker.stop()
        self._workers.pop(name, None)  # last: if this task is cancelled before, the next call stops the worker
        return True

    # --- leaving -----------------------------------------------------------------------------------------------------

    async def _leave_pool(self, name: str) -> None:
        """End what this host does for the pool."""
        self._logged.pop(name, None)
        self._pulse.leave(f"pool {name}")
        await self._stop_worker(name)
        await self._heartbeats.say_goodbye(name)

    async def stop(self) -> None:
        """Leave every pool, because this host stops."""
        self._stopped = True
        names = list(self._tasks)
        tasks = [self._tasks.pop(name) for name in names]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await asyncio.gather(*(self._leave_pool(name) for name in names))

    # --- for status and doctor ---------------------------------------------------------------------------------------

    def _problem(self, served: Served) -> str | None:
        worker = self.worker(served.name)
        return served.problem or self._job_problem(served.name) or (worker.problem if worker is not None else None)

    def entries(self) -> list[Served]:
        """Return every served pool, in the order of the files."""
        return self._table.entries()

    def placed_problems(self) -> list[Problem]:
        """Return why pools cannot be served, each at its place in the files."""
        return [Problem(message=why, place=served.settings.place) for served, why in self.problems()]

    def problems(self) -> list[tuple[Served, str]]:
        return [(served, why) for served in self._table.entries() if (why := self._problem(served)) is not None]

    def documents(self, records: Sequence[RunRecord]) -> list[dict[str, Any]]:
        """Return each pool's document for `status`; `records` are those of the runs under way."""
        found = []
        for served in self._table.entries():
            live = [record for record in records if record.holds_slot and record.pool == served.name]
            held = sum(record.is_held(self._now()) for record in live)
            worker = self.worker(served.name)
            about = worker.document() if worker is not None else None
            way, problem = self._heartbeats.way(served.name), self._problem(served)
            found.append(
                served_document(served, running=len(live), held=held, worker=about, problem=problem, heartbeats=way)
            )
        return found
