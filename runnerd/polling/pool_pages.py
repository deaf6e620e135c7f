"""Polls the work pools that this host serves: the first page of each, and the pages behind runs that may not start.

Invariants: one poll is one request for each pool, and more only where runs that may not start hide others; the runs of
own deployments in a pool are left to DeploymentPages, which starts them with their own settings.
"""

from __future__ import annotations

from collections.abc import Sequence

from runnerd.core.machine import Phase
from runnerd.core.prefect import FlowRun
from runnerd.deployments.registry import Registry
from runnerd.polling.offering import Offering
from runnerd.polling.progress import PollProgress
from runnerd.polling.server_limits import ServerLimits
from runnerd.pools.offers import PoolOffers
from runnerd.pools.table import Served
from runnerd.runs.supervisor import Offered, Supervisor

_PAGES_BEHIND_PER_POLL = 25


class PoolPages:
    """Puts the due runs of pools on offer."""

    def __init__(
        self,
        *,
        pools: PoolOffers,
        registry: Registry,
        supervisor: Supervisor,
        offering: Offering,
        limits: ServerLimits,
        progress: PollProgress,
    ) -> None:
        self._pools = pools
        self._registry = registry
        self._supervisor = supervisor
        self._offering = offering
        self._on_offer = offering.on_offer
        self._limits = limits
        self._progress = progress

    async def poll_pool(self, served: Served) -> bool:
        """Put the first page of one pool on offer; whether more runs may be behind that page. Raises ApiError."""
        self._limits.begin_listing(served.name)
        self._on_offer.begin_list(served.name, here=self._supervisor.ids())
        if served.limited:
            # If this request fails, slots would be left free for runs that cannot be claimed without an answer.
            self._on_offer.drop_pool(served.name)
        found = await self._pools.first_page(served)
        self._progress.note_answer()
        self._on_offer.drop_pool(served.name)
        self._on_offer.put(self._free(served, found))
        self._limits.note_listed(served.name)
        return self._pools.may_have_more(served, found)

    async def poll_behind(self, served: Served, offered: Offered) -> None:
        """Offer the pages behind the first, while runs that their own limits hold up hide others. Raises ApiError.

        A poll goes through a few pages, the next poll goes on from there, until all pages were seen.
        `offered` is what became of the last offer.
        """
        for _ in range(_PAGES_BEHIND_PER_POLL):
            if not self._could_start_more(served, offered):
                return
            self._progress.beat()
            known = set(self._on_offer.runs)
            found = await self._pools.next_page(served)
            if found is None:
                return
            self._on_offer.put(self._free(served, found))
            offered = self._offering.offer_due()
            self._on_offer.keep_one_each([run for run in found if run.id not in known])

    def _free(self, served: Served, found: Sequence[FlowRun]) -> list[FlowRun]:
        """Return the runs that the pool may offer: not taken since it was asked, and not of own deployments."""
        others = self._on_offer.without_taken(served.name, found)
        return [run for run in others if self._registry.own(run.deployment_id) is None]

    def _could_start_more(self, served: Served, offered: Offered) -> bool:
        """Whether a run of this pool could start if it were on offer."""
        if self._supervisor.draining is not None:
            return False
        if offered.full or served.name in offered.full_pools or offered.wait_s is not None:
            return False
        if not served.limited:
            return True
        # The API does not count a claim before it is proposed: until then it would give the claim's slot away again.
        claiming = any(one.pool == served.name and one.phase is Phase.CLAIMING for one in self._supervisor.records())
        return not claiming and self._on_offer.has_waiting(served.name)
