"""Holds the work pools that this host serves: their settings in the files, and what the API says of them.

Invariant: a pool is polled exactly when it is `open`; `state` and `problem` only inform administrators.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from runnerd.core.exit_words import time_text
from runnerd.core.limits import PoolCaps
from runnerd.core.place import Json, Place
from runnerd.core.prefect import AGENT, PROCESS, WorkPool, WorkQueue
from runnerd.core.settings import PoolSettings
from runnerd.core.wakes import Wakes


class PoolState(StrEnum):
    """A served pool as `runnerctl status` shows it."""

    READY = "ready"
    PAUSED = "paused"
    INVALID = "invalid"  # cannot be served; its problem says why
    UNKNOWN = "unknown"  # the API has not answered about the pool yet


class PoolService(StrEnum):
    """How a pool is served."""

    WORKER = "worker"  # by this daemon, as Prefect's process worker
    AGENT = "agent"  # by this daemon, as the agent of 2.x
    OTHER = "other"  # by Prefect's own worker for that type, which this daemon supervises


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A pool that this host serves. `queues` are those it serves, in the order of their priorities."""

    settings: PoolSettings
    pool: WorkPool | None = None
    queues: tuple[WorkQueue, ...] = ()
    problem: str | None = None
    heartbeat_at: datetime | None = None

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def service(self) -> PoolService | None:
        """How the pool is served; None until the API has answered."""
        if self.pool is None:
            return None
        return {PROCESS: PoolService.WORKER, AGENT: PoolService.AGENT}.get(self.pool.type, PoolService.OTHER)

    @property
    def open(self) -> bool:
        """Whether this daemon polls the pool for runs."""
        return self.problem is None and self.service in (PoolService.WORKER, PoolService.AGENT)

    @property
    def openings(self) -> tuple[bool, list[tuple[str, bool]]]:
        """What decides which runs are listed: whether the pool is polled, and which of its queues are paused."""
        return self.open, [(queue.id, queue.is_paused) for queue in self.queues]

    @property
    def state(self) -> PoolState:
        if self.problem is not None:
            return PoolState.INVALID
        if self.pool is None:
            return PoolState.UNKNOWN
        return PoolState.PAUSED if self.pool.is_paused else PoolState.READY

    @property
    def limited(self) -> bool:
        """Whether the API enforces a concurrency limit when it lists the pool's runs (ADR 25)."""
        pool = self.pool
        return pool is not None and (
            pool.concurrency_limit is not None or any(queue.concurrency_limit is not None for queue in self.queues)
        )

    @property
    def caps(self) -> PoolCaps:
        """The limits on this host: the files' own, and Prefect's, which this host shares with others."""
        limits = [self.settings.limit, self.pool.concurrency_limit if self.pool else None]
        return PoolCaps(
            runs=min((limit for limit in limits if limit is not None), default=None),
            each_deployment=self.settings.run.limit,
            queues={
                queue.name: queue.concurrency_limit for queue in self.queues if queue.concurrency_limit is not None
            },
        )


@dataclass(slots=True)
class PoolTable:
    """Holds one entry for each pool, in the order of the files."""

    wakes: Wakes = field(default_factory=Wakes)
    listed: int = 0  # how often the pools to serve were listed
    _entries: dict[str, Served] = field(default_factory=dict)

    def want(self, pools: Sequence[PoolSettings]) -> None:
        """Serve these pools from now on. A pool whose settings are the same keeps what the API said of it."""
        entries = {}
        for settings in pools:
            old = self._entries.get(settings.name)
            same = old is not None and _without_place(old.settings) == _without_place(settings)
            entries[settings.name] = replace(old, settings=settings) if old and same else Served(settings=settings)
        self._entries = entries
        self.listed += 1
        self.wakes.pools.set()

    def entries(self) -> list[Served]:
        return list(self._entries.values())

    def names(self) -> set[str]:
        return set(self._entries)

    def get(self, name: str | None) -> Served | None:
        return self._entries.get(name or "")

    def put(self, served: Served, *, known: Served) -> bool:
        """Replace the entry `known` by `served`; False when a reload has replaced `known` already."""
        if self._entries.get(served.name) is not known:
            return False
        self._entries[served.name] = served
        return True

    def caps(self) -> dict[str, PoolCaps]:
        """Return the limits of every pool, by its name."""
        return {name: served.caps for name, served in self._entries.items()}


def _without_place(settings: PoolSettings) -> PoolSettings:
    """Return the settings without their place in a file, and without that file's problem."""
    return replace(settings, place=Place(""), problem=None)


def served_document(
    served: Served, *, running: int, held: int, worker: Json, problem: str | None, heartbeats: str | None
) -> dict[str, Json]:
    """Return the pool's document for `status`. `worker` is the one of its Prefect worker; None when it has none.

    `held`: how many of the `running` runs wait until they are due. `heartbeats`: how they are sent, by `channel` or by
    `requests`.
    """
    settings, pool = served.settings, served.pool
    return {
        "name": served.name,
        "type": pool.type if pool is not None else settings.type,
        "service": served.service.value if served.service is not None else None,
        "state": served.state.value,
        "problem": problem,
        "file": settings.place.file,
        "line": settings.place.line,
        "running": running,
        "held": held,
        "limit": settings.limit,
        "concurrency_limit": pool.concurrency_limit if pool is not None else None,
        "heartbeat_at": time_text(served.heartbeat_at),
        "heartbeats": heartbeats,
        "queues": [
            {
                "name": queue.name,
                "priority": queue.priority,
                "paused": queue.is_paused,
                "concurrency_limit": queue.concurrency_limit,
            }
            for queue in served.queues
        ],
        "worker": worker,
    }
