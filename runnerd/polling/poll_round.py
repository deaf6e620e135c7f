"""Polls once: asks for the due runs of everything this host serves and whose interval is over.

Invariants: all these sources are asked before any slot is given away, or the first source would always have the slots;
a source that cannot be asked hides no other.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from runnerd.core.errors import ApiError
from runnerd.core.prefect import FlowRun
from runnerd.core.problems import Problems
from runnerd.deployments.registry import Registry
from runnerd.polling.deployment_pages import DeploymentPages
from runnerd.polling.intervals import Intervals
from runnerd.polling.look_ups import LookUps
from runnerd.polling.offering import Offering
from runnerd.polling.pool_pages import PoolPages
from runnerd.polling.progress import PollProgress
from runnerd.pools.offers import PoolOffers
from runnerd.pools.table import Served
from runnerd.prefect_api.client import PrefectApi
from runnerd.runs.supervisor import Offered
from runnerd.system.ambient import Ambient
from runnerd.system.containment import Containment

T = TypeVar("T")


class PollRound:
    """Asks the own deployments and the pools. `unsupported`: why this server's runs cannot be claimed safely."""

    def __init__(
        self,
        *,
        api: PrefectApi,
        registry: Registry,
        pools: PoolOffers,
        deployment_pages: DeploymentPages,
        pool_pages: PoolPages,
        intervals: Intervals,
        offering: Offering,
        look_ups: LookUps,
        progress: PollProgress,
        problems: Problems,
        ambient: Ambient,
    ) -> None:
        self._api = api
        self._registry = registry
        self._pools = pools
        self._deployment_pages = deployment_pages
        self._pool_pages = pool_pages
        self._intervals = intervals
        self._offering = offering
        self._look_ups = look_ups
        self._progress = progress
        self._contained = Containment(log=ambient.log, loop="poll")
        self.unsupported: str | None = None
        problems.register_text(lambda: self.unsupported)

    def serves(self, run: FlowRun) -> bool:
        """Whether this host starts such a run: its deployment or its work pool is served here."""
        own = self._registry.own(run.deployment_id) is not None
        return own or run.pool in {served.name for served in self._pools.open_pools()}

    async def poll_due(self) -> Offered:
        """Ask the sources, offer their runs, and return what became of them. Raises the first ApiError at the end."""
        self._offering.begin_poll()
        self._intervals.begin_poll()
        ids, pools = self._registry.own_ids(), self._intervals.asked_pools()
        if not ids and not self._pools.open_pools():
            self._offering.on_offer.drop_all_own()
            return Offered()
        try:
            server = await self._api.server()  # cached; asked again only after a request has failed
        except ApiError as error:
            self._intervals.note_all_failed(error)
            raise
        self.unsupported = None if server.supported else server.why
        if not server.supported:
            return Offered()
        self._offering.note_server(major=server.major)
        failures: list[ApiError] = []
        longer = [one for one in pools if await self._ask(one, self._pool_pages.poll_pool(one), failures)]
        own = None
        if self._intervals.asks_own():
            self._deployment_pages.begin_poll()
            own = await self._ask(None, self._deployment_pages.poll_deployments(ids), failures)
        offered = own or self._offering.offer_due()
        for one in longer:
            await self._attempt(one, self._pool_pages.poll_behind(one, offered), failures)
        self._offering.expire_listings()
        self._look_ups.begin()
        if failures:
            raise failures[0]
        return offered

    async def _ask(self, served: Served | None, asking: Awaitable[T], failures: list[ApiError]) -> T | None:
        """Await the answer of this pool as _attempt() does, and note for its interval whether the pool has answered."""
        before = len(failures)
        self._progress.begin_source()
        found = await self._attempt(served, asking, failures)
        if self._progress.answered:  # what failed behind the first page waits for the next poll
            self._intervals.note_answer(served)
        elif found is None:
            self._intervals.note_failure(served, failures[-1] if len(failures) > before else None)
        return found

    async def _attempt(self, served: Served | None, asking: Awaitable[T], failures: list[ApiError]) -> T | None:
        """Await the answer of this pool; None: of own deployments.

        Returns None when that goes wrong, and adds a failure when the API does not answer.
        """
        self._progress.beat()
        try:
            with self._contained.item("own deployments" if served is None else f"pool {served.name}"):
                return await asking
        except ApiError as error:
            failures.append(error)
        return None
