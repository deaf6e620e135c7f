"""Decides which sources of runs are asked in a poll: own deployments and pools, each at its own interval.

Invariant: sources with one interval are asked together, or the first of them would always have the free slots.
"""

from __future__ import annotations

from collections.abc import Callable

from runnerd.config.in_force import ConfigInForce
from runnerd.pools.offers import PoolOffers
from runnerd.pools.table import Served

_EARLY_S = 0.001  # a timer may end so much too early


class Intervals:
    """Remembers when each interval is over. `clock` is monotonic, in seconds; `jitter` (0 to 1) spreads many hosts."""

    def __init__(
        self, *, pools: PoolOffers, config: ConfigInForce, clock: Callable[[], float], jitter: Callable[[], float]
    ) -> None:
        self._pools = pools
        self._settings = config.settings
        self._clock = clock
        self._jitter = jitter
        self._over_at: dict[float, float] = {}  # by interval, in seconds
        self._asked: set[float] = set()  # intervals whose sources are asked in the poll under way

    def begin_poll(self) -> None:
        """Note which intervals are over: their sources are asked in this poll."""
        now = self._clock() + _EARLY_S
        self._asked = {one for one in self._in_use() if self._over_at.get(one, now) <= now}

    def asks_own(self) -> bool:
        """Whether this poll asks for the runs of own deployments."""
        return self._settings().api.poll_interval_s in self._asked

    def asked_pools(self) -> list[Served]:
        """Return the pools that this poll asks."""
        return [served for served in self._pools.open_pools() if self._pools.interval_s(served) in self._asked]

    def end_poll(self) -> float:
        """Begin the intervals of this poll's sources anew; return the seconds until the first of all is over."""
        now, used = self._clock(), self._in_use()
        spread = 0.9 + 0.2 * self._jitter()
        self._over_at |= {one: now + one * spread for one in self._asked}
        self._over_at = {one: at for one, at in self._over_at.items() if one in used}
        return max(min(self._over_at.get(one, now) for one in used) - now, 0.0)

    def end_all(self) -> None:
        """Have everything asked in the next poll."""
        self._over_at.clear()

    def end_limited(self) -> None:
        """Have the pools asked in the next poll whose concurrency limits the API enforces when it lists runs."""
        intervals = {self._pools.interval_s(served) for served in self._pools.open_pools() if served.limited}
        self._over_at = {one: at for one, at in self._over_at.items() if one not in intervals}

    def _in_use(self) -> set[float]:
        """The intervals of all sources; the host's also where there are no own deployments yet."""
        pools = {self._pools.interval_s(served) for served in self._pools.open_pools()}
        return {self._settings().api.poll_interval_s, *pools}
