"""Concurrency limits that the API enforces when it lists a pool's runs (ADR 25).

Invariants: a run of a limited pool is claimed only right after the API has listed it, because another host may have
taken the pool's last slot since; a slot that becomes free is a reason to ask again, because the API lists no more runs
than there are slots.
"""

from __future__ import annotations

from runnerd.pools.offers import PoolOffers
from runnerd.runs.supervisor import Supervisor


class ServerLimits:
    """Remembers which pools were listed just now, and which runs took up slots that the API counts."""

    def __init__(self, *, pools: PoolOffers, supervisor: Supervisor) -> None:
        self._pools = pools
        self._supervisor = supervisor
        self._listed: set[str] = set()  # pools, by name, that the API has listed in the poll under way
        self._counted: set[str] = set()  # runs, by id, that took up a slot since the last poll began

    def begin_poll(self) -> None:
        """Forget the slots of the poll before: this poll uses those that have become free."""
        self._counted.clear()

    def note_listed(self, pool: str) -> None:
        """Record that the API has listed this pool's runs just now."""
        self._listed.add(pool)

    def expire_listed(self) -> None:
        """Treat every pool as listed too long ago."""
        self._listed.clear()

    def outdated_pools(self) -> set[str]:
        """Names of the limited pools whose runs the API has not listed just now."""
        return self._pools.limited_pools() - self._listed

    def note_slots(self) -> None:
        """Record which of this host's runs take up slots that the API counts."""
        limited = self._pools.limited_pools()
        records = [record for record in self._supervisor.records() if record.holds_slot]
        self._counted |= {record.id for record in records if record.pool in limited}

    def has_freed_slot(self) -> bool:
        """Whether a run that took up such a slot has ended."""
        return bool(self._counted - {record.id for record in self._supervisor.records()})
