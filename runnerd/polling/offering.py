"""Offers runs to the supervisor: those on offer that are due, each time anything may have changed.

Invariants: a run that is skipped stays on offer, and is offered again the moment a slot is free, without a request
(ADR 10); a run listed while draining is not offered before late.policy was applied to it (ADR 18).
"""

from __future__ import annotations

from collections.abc import Callable

from runnerd.config.in_force import ConfigInForce
from runnerd.core.leads import Leads
from runnerd.core.prefect import FlowRun, due
from runnerd.polling.on_offer import OnOffer
from runnerd.polling.server_limits import ServerLimits
from runnerd.pools.offers import PoolOffers
from runnerd.runs.supervisor import Offered, Supervisor
from runnerd.system.ambient import Ambient

_WAKE_AT_LEAST_S = 0.01  # or the rest would be a busy loop just before a run falls due
_WAKE_AT_MOST_S = 3600.0


class Offering:
    """Offers the due runs of `on_offer`, and remembers what the supervisor made of them."""

    def __init__(
        self,
        *,
        supervisor: Supervisor,
        pools: PoolOffers,
        limits: ServerLimits,
        leads: Leads,
        config: ConfigInForce,
        ambient: Ambient,
    ) -> None:
        self._supervisor = supervisor
        self._pools = pools
        self._limits = limits
        self._leads = leads
        self._settings = config.settings
        self._now = ambient.now
        self._last = Offered()
        self.on_offer = OnOffer()
        self.once = False  # nothing is offered later: what may be started is started now

    def note_server(self, *, major: int) -> None:
        """Note which limits the server enforces itself."""
        self._supervisor.server_cancels = major >= 3

    def begin_poll(self) -> None:
        """Forget the runs of pools that are not asked any more."""
        self._drop_closed_pools()

    def expire_listings(self) -> None:
        """Hold the runs of limited pools until the API has listed them again."""
        self._limits.expire_listed()

    def offer_due(self) -> Offered:
        """Offer the runs that are due, in turn, and return what became of them.

        The runs of an outdated limited pool are on hold: their slots stay free for them, but nothing is claimed.
        """
        if self.awaits_late_policy():
            return Offered()
        self._drop_closed_pools()
        prefetch_s = self._prefetch()
        ready = self.on_offer.ready(self._now(), prefetch_s=prefetch_s, lead_s=self._lead(prefetch_s))
        outdated = self._limits.outdated_pools()
        offered = self._supervisor.offer(ready, hold={run.id for run in ready if run.pool in outdated})
        self.on_offer.note_outcome(offered.claimed, offered.skipped, offered={run.id for run in ready})
        self._last = offered
        self._limits.note_slots()
        return offered

    def awaits_late_policy(self) -> bool:
        """Whether a drain has ended since the last poll: late.policy must be applied before any run starts."""
        return bool(self.on_offer.runs) and self.on_offer.unjudged and self._supervisor.draining is None

    def awaited_pools(self) -> set[str]:
        """Names of the limited pools to ask anew: for a run on hold, or for a freed slot that the API counts."""
        return self._pools.limited_pools() if self._last.held else self._limits.freed_pools()

    def next_due_s(self) -> float:
        """Seconds until a run on offer may start by itself: when it falls due, or when start_rate allows one more."""
        waits = [] if self._last.wait_s is None else [self._last.wait_s]
        now, lead_s = self._now(), self._lead(self._prefetch())
        for run in self.on_offer.runs.values():
            at = due(run)
            seconds = (at - now).total_seconds() - lead_s(run) if at is not None else 0.0
            if seconds > 0:
                waits.append(seconds)
        return max(_WAKE_AT_LEAST_S, min(waits, default=_WAKE_AT_MOST_S))

    def _prefetch(self) -> Callable[[FlowRun], float]:
        """Return how long before it is due a run may be started at the earliest, in seconds: a function of the run."""
        own_s = self._settings().api.prefetch_s
        pools_s = {served.name: served.settings.prefetch_s for served in self._pools.open_pools()}
        return lambda run: own_s if run.pool is None else pools_s.get(run.pool, 0.0)

    def _lead(self, prefetch_s: Callable[[FlowRun], float]) -> Callable[[FlowRun], float]:
        """Return how long before it is due a run is started, in seconds: its process then waits for that time."""
        if self.once:
            return prefetch_s
        count = self.on_offer.due_together()

        def lead_s(run: FlowRun) -> float:
            return self._leads.lead_s(run.deployment_id, most_s=prefetch_s(run), together=count[due(run)])

        return lead_s

    def _drop_closed_pools(self) -> None:
        self.on_offer.keep_pools({served.name for served in self._pools.open_pools()})
