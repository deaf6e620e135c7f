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
        self._counted: dict[str, str] = {}  # pools by run that took up a slot since its pool was listed
        self._ended: set[str] = set()  # those that had ended when the request under way began

    def begin_listing(self, pool: str) -> None:
        """Record which slots of this pool have become free: the answer to the request that begins uses them."""
        self.note_slots()
        self._ended = {run_id for run_id in self._gone() if self._counted[run_id] == pool}

    def note_listed(self, pool: str) -> None:
        """Record that the API has listed this pool's runs just now."""
        self._listed.add(pool)
        self._counted = {run_id: its for run_id, its in self._counted.items() if run_id not in self._ended}

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
        known = {run_id: pool for run_id, pool in self._counted.items() if pool in limited}
        self._counted = known | {record.id: record.pool for record in records if record.pool in limited}

    def freed_pools(self) -> set[str]:
        """Names of the limited pools of which a run that took up such a slot has ended."""
        return {self._counted[run_id] for run_id in self._gone()} & self._pools.limited_pools()

    def _gone(self) -> set[str]:
        return set(self._counted) - set(self._supervisor.ids())
