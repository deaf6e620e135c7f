"""The table of the work pools this host serves: what the files ask for, and how the API has it.

Invariant: an entry is polled exactly when it is `open`; `state` and `problem` are for people.
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
    INVALID = "invalid"  # it cannot be served; its problem says why
    UNKNOWN = "unknown"  # the API has not told of it yet


class Service(StrEnum):
    """How a pool is served."""

    WORKER = "worker"  # by this daemon, as Prefect's process worker
    AGENT = "agent"  # by this daemon, as 2.x's agent
    OTHER = "other"  # by Prefect's own worker for that type, kept here


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One pool. `queues` are those this host serves, in the order of their priorities."""

    settings: PoolSettings
    pool: WorkPool | None = None
    queues: tuple[WorkQueue, ...] = ()
    problem: str | None = None
    heartbeat_at: datetime | None = None

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def service(self) -> Service | None:
        if self.pool is None:
            return None
        return {PROCESS: Service.WORKER, AGENT: Service.AGENT}.get(self.pool.type, Service.OTHER)

    @property
    def open(self) -> bool:
        """Whether this daemon asks it for runs."""
        return self.problem is None and self.service in (Service.WORKER, Service.AGENT)

    @property
    def state(self) -> PoolState:
        if self.problem is not None:
            return PoolState.INVALID
        if self.pool is None:
            return PoolState.UNKNOWN
        return PoolState.PAUSED if self.pool.is_paused else PoolState.READY

    @property
    def limited(self) -> bool:
        """Whether the server counts its runs, so that what it offered a while ago may be too many by now."""
        pool = self.pool
        return pool is not None and (
            pool.concurrency_limit is not None or any(queue.concurrency_limit is not None for queue in self.queues)
        )

    @property
    def caps(self) -> PoolCaps:
        """What may run of it here: our own limits, and the server's, of which we can only use a part."""
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
    """Entries by the pool's name, in the order of the files."""

    wakes: Wakes = field(default_factory=Wakes)
    _entries: dict[str, Served] = field(default_factory=dict)

    def want(self, pools: Sequence[PoolSettings]) -> None:
        """What the files ask for now. What is known of a pool of which the same is wanted stays known."""
        entries = {}
        for settings in pools:
            old = self._entries.get(settings.name)
            same = old is not None and _essence(old.settings) == _essence(settings)
            entries[settings.name] = replace(old, settings=settings) if old and same else Served(settings=settings)
        self._entries = entries
        self.wakes.pools.set()

    def entries(self) -> list[Served]:
        return list(self._entries.values())

    def names(self) -> set[str]:
        return set(self._entries)

    def get(self, name: str | None) -> Served | None:
        return self._entries.get(name or "")

    def put(self, served: Served, *, known: Served) -> bool:
        """Replace `known`; False when the files want something else by now."""
        if self._entries.get(served.name) is not known:
            return False
        self._entries[served.name] = served
        return True

    def caps(self) -> dict[str, PoolCaps]:
        return {name: served.caps for name, served in self._entries.items()}


def _essence(settings: PoolSettings) -> PoolSettings:
    """Without where it stands, and what is wrong with the file it stands in."""
    return replace(settings, place=Place(""), problem=None)


def served_document(served: Served, *, running: int, worker: Json, problem: str | None) -> dict[str, Json]:
    """One pool. `worker` is Prefect's own, for types that are not ours; None otherwise."""
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
        "limit": settings.limit,
        "concurrency_limit": pool.concurrency_limit if pool is not None else None,
        "heartbeat_at": time_text(served.heartbeat_at),
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
