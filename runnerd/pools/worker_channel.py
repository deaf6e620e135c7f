"""Keeps the worker channel of one served pool open: its heartbeats go over it, and a changed pool is noticed by it.

Invariants: a server, proxy or version without the channel costs a try now and then, and heartbeats go by requests
as ever; `live` only while the server has accepted this worker and the connection is there; nothing that the server
sends is believed or waited for, and any number of messages costs no more than the pool's own limits (ADR 31).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime

from runnerd.core.errors import ApiError
from runnerd.core.prefect import WorkPool
from runnerd.prefect_api.prefect_socket import DENIED, RETRY_CAP_S, RETRY_REFUSED_S
from runnerd.prefect_api.websocket import Closed, Refusal
from runnerd.prefect_api.worker_socket import Worker, WorkerSocket
from runnerd.system.ambient import Ambient
from runnerd.system.containment import Containment

_STEADY_S = 60.0  # a channel that ended sooner is not opened again at once

OpenChannel = Callable[[Worker], Awaitable[WorkerSocket | Refusal]]


class WorkerChannel:
    """Opens and keeps one channel: `run` for ever. `on_change` is called when the pool has changed."""

    def __init__(
        self,
        *,
        open_channel: OpenChannel,
        worker: Worker,
        on_change: Callable[[], None],
        ambient: Ambient,
    ) -> None:
        self._open = open_channel
        self._worker = worker
        self._on_change = on_change
        self._now, self._clock, self._log = ambient.now, ambient.clock, ambient.log
        self._backoff = ambient.backoff
        self._contained = Containment(log=ambient.log, loop="worker channel")
        self.live = False
        self.beat_at: datetime | None = None  # when the server was sent the last heartbeat over it

    async def run(self) -> None:
        """Open the channel again whenever it ends."""
        backoff = self._backoff()
        while True:
            began, delay_s = self._clock(), None
            with self._contained.item(f"pool {self._worker.pool}"):
                try:
                    delay_s = await self._once()
                except ApiError as error:  # no readable credentials
                    self._note("no worker channel", str(error))
            if self._clock() - began > _STEADY_S:
                backoff.reset()
            await asyncio.sleep(backoff.next_s(cap_s=RETRY_CAP_S) if delay_s is None else delay_s)

    async def _once(self) -> float | None:
        """Work until the channel ends; return the seconds to wait before the next, None for the back-off."""
        found = await self._open(self._worker)
        if isinstance(found, Refusal):
            self._note("no worker channel", found.why)
            return RETRY_REFUSED_S if found.lasts else None
        beating = asyncio.create_task(self._beat(found), name=f"heartbeats of pool {self._worker.pool}")
        try:
            self.live, self.beat_at = True, self._now()  # opening it is a heartbeat
            self._note("worker channel", "open")
            over = await self._listen(found)
        finally:
            self.live = False
            beating.cancel()
            await found.close()
        self._note("worker channel", f"ended: {over.why}")
        return RETRY_REFUSED_S if over.code == DENIED else None

    async def _listen(self, socket: WorkerSocket) -> Closed:
        while True:
            found = await socket.receive()
            if isinstance(found, Closed):
                return found
            if found:
                self._on_change()
            # Messages that are there already are read without a pause: other loops get their turn in between.
            await asyncio.sleep(0)

    async def _beat(self, socket: WorkerSocket) -> None:
        """Send heartbeats until one cannot be sent, which shows at the next read."""
        while True:
            await asyncio.sleep(self._worker.interval_s)
            try:
                await socket.beat(self._now())
            except OSError:
                return await socket.close()
            self.beat_at = self._now()

    def _note(self, what: str, detail: str) -> None:
        self._log.debug(what, pool=self._worker.pool, detail=detail)


class WorkerChannels:
    """Keeps one channel for each pool that is served as a worker."""

    def __init__(self, *, open_channel: OpenChannel, ambient: Ambient) -> None:
        self._open = open_channel
        self._ambient = ambient
        # By pool: its id and this host's name there, the channel, and its task.
        self._kept: dict[str, tuple[tuple[str, str], WorkerChannel, asyncio.Task[None]]] = {}

    def keep(self, pool: WorkPool, *, worker_name: str, interval_s: int, on_change: Callable[[], None]) -> None:
        """Keep the pool's channel open from now on; a pool that was created again, or another name, gets a new one."""
        known, wanted = self._kept.get(pool.name), (pool.id, worker_name)
        if known is not None:
            if known[0] == wanted:
                return
            known[2].cancel()
        worker = Worker(pool=pool.name, name=worker_name, interval_s=interval_s)
        channel = WorkerChannel(open_channel=self._open, worker=worker, on_change=on_change, ambient=self._ambient)
        task = asyncio.create_task(channel.run(), name=f"worker channel of pool {pool.name}")
        self._kept[pool.name] = (wanted, channel, task)

    def beat_at(self, name: str) -> datetime | None:
        """Return when the last heartbeat was sent over the pool's channel; None while that is not open."""
        known = self._kept.get(name)
        return known[1].beat_at if known is not None and known[1].live else None

    async def close(self, name: str) -> None:
        """Close the pool's channel, and send no heartbeat over it any more."""
        known = self._kept.pop(name, None)
        if known is not None:
            known[2].cancel()
            await asyncio.wait({known[2]})
