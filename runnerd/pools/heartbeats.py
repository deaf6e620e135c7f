"""Sends the heartbeats of this host as a worker of its pools: over the worker channel, or by requests.

Invariants: a pool hears of this host every HEARTBEAT_S while the API takes heartbeats, whatever else it refuses; a pool
that was never sent one is not left with a goodbye.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import datetime
from functools import partial

from runnerd.core.errors import ApiAway, ApiDenied, ApiError
from runnerd.core.prefect import PROCESS, WorkPool
from runnerd.core.wakes import Wakes
from runnerd.pools.table import Served
from runnerd.pools.worker_channel import WorkerChannels
from runnerd.pools.worker_events import WorkerEvents
from runnerd.prefect_api.backoff import persist
from runnerd.prefect_api.pools import PoolsApi
from runnerd.system.ambient import Ambient

HEARTBEAT_S = 30  # as Prefect's workers; after three of them without one, a worker is OFFLINE
GOODBYE_S = 1
_GOODBYE_BOUND_S = 5.0
_EARLY_S = 1.0  # what is due so soon is sent now


class Heartbeats:
    """Remembers which pools list this host among their workers."""

    def __init__(
        self,
        *,
        api: PoolsApi,
        channels: WorkerChannels,
        worker_name: Callable[[], str],
        events: WorkerEvents,
        wakes: Wakes,
        ambient: Ambient,
    ) -> None:
        self._api = api
        self._channels = channels
        self._worker_name = worker_name
        self._events = events
        self._draining = wakes.draining
        self._now, self._clock = ambient.now, ambient.clock
        self._backoff = ambient.backoff
        self._announced: set[str] = set()
        self._sent_at: dict[str, float] = {}  # by pool: when a request was last tried
        self._failed: set[str] = set()  # pools whose last request has failed

    def announce(self, name: str) -> None:
        """Note that the pool is going to list this host, by the heartbeats of a Prefect worker."""
        self._announced.add(name)

    async def send(self, served: Served, pool: WorkPool, *, on_change: Callable[[], None]) -> datetime | None:
        """Send one if it is due, for a pool that lists its workers; return when the last one was sent.

        `on_change` is called when the pool has changed, or is gone. Raises ApiError.
        """
        if pool.type != PROCESS:
            await self._channels.close(pool.name)
            return None
        if self._draining.is_set():  # this host takes no runs, and a pool without another worker is not ready
            await self.say_goodbye(pool.name)
            return served.heartbeat_at
        major = (await self._api.server()).major
        self._announced.add(pool.name)
        if major >= 3:
            self._channels.keep(pool, worker_name=self._worker_name(), interval_s=HEARTBEAT_S, on_change=on_change)
            if (beat_at := self._channels.beat_at(pool.name)) is not None:
                if pool.name in self._failed:  # it is not repeated, so that the API would count as degraded meanwhile
                    self._failed.discard(pool.name)
                    self._api.note_heartbeat(pool.name)
                return beat_at
        before = self._sent_at.get(pool.name)
        if served.heartbeat_at is not None and before is not None and self._clock() - before < HEARTBEAT_S - _EARLY_S:
            return served.heartbeat_at
        self._sent_at[pool.name] = self._clock()
        self._failed.add(pool.name)
        beaten = await self._api.heartbeat(pool.name, worker=self._worker_name(), interval_s=HEARTBEAT_S)
        self._failed.discard(pool.name)
        if beaten:
            return self._now()
        on_change()
        return served.heartbeat_at

    async def say_goodbye(self, name: str) -> None:
        """Have the pool list this host as OFFLINE at once, not after three heartbeats. Prefect's worker does not."""
        await self._channels.close(name)
        self._sent_at.pop(name, None)
        self._failed.discard(name)
        if name not in self._announced:
            return
        self._announced.discard(name)
        with contextlib.suppress(ApiError, TimeoutError):
            async with asyncio.timeout(_GOODBYE_BOUND_S):
                worker = self._worker_name()
                # Repeated where the server refuses: no later request would take the refusal out of the API's health.
                send = partial(self._api.heartbeat, name, worker=worker, interval_s=GOODBYE_S)
                await persist(send, backoff=self._backoff(), passing=_is_answered)
                if (stopped := self._events.take_stopped(name)) is not None:
                    emit = partial(self._api.emit_event, stopped)
                    await persist(emit, backoff=self._backoff(), passing=_is_answered)

    def way(self, name: str) -> str | None:
        """Return how the pool hears of this host, by `channel` or by `requests`; None where it does not."""
        if name not in self._announced:
            return None
        return "channel" if self._channels.beat_at(name) is not None else "requests"


def _is_answered(error: ApiAway | ApiDenied) -> bool:
    return isinstance(error, ApiAway) and error.answered
