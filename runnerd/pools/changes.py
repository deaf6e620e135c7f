"""Decides what an event about a work pool or its queues changes for this host.

Invariant: what this host causes itself wakes nothing. A poll makes a queue `ready` that was not polled for a minute,
and a heartbeat a pool: polls of a host with a long poll_interval would otherwise come one after the other.
"""

from __future__ import annotations

from collections.abc import Callable

from runnerd.core.wakes import Wakes
from runnerd.pools.table import PoolTable, Served


class PoolChanges:
    """Wakes what an event concerns. `outdated` is called with the name of a pool that is to be read again."""

    def __init__(self, *, table: PoolTable, outdated: Callable[[str], None], wakes: Wakes) -> None:
        self._table = table
        self._outdated = outdated
        self._wakes = wakes

    def serves(self, pool: str | None) -> bool:
        """Whether this host serves the pool of that name."""
        return self._table.get(pool) is not None

    def note(self, pool: str | None, event: str) -> None:
        """Act on an event of this name about a pool, or about a queue of the pool."""
        served = self._table.get(pool)
        what = event.rpartition(".")[2]
        if served is None or what == "not-ready" or (what == "ready" and not _is_paused(served)):
            return
        self._outdated(served.name)
        self._wakes.poll_now()


def _is_paused(served: Served) -> bool:
    paused = served.pool is not None and served.pool.is_paused
    return paused or any(queue.is_paused for queue in served.queues)
