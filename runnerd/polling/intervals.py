"""Decides which sources of runs are asked in a poll: own deployments and pools, each at its own interval.

Invariants: sources with one interval are asked together, or the first of them would always have the free slots; a
source that fails slows down only the sources with its interval, and none of those that answer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from runnerd.config.in_force import ConfigInForce
from runnerd.core.backoff import MAINTENANCE_S, Backoff
from runnerd.core.errors import ApiAway, ApiError
from runnerd.core.pace import JITTER, Pace
from runnerd.pools.offers import PoolOffers
from runnerd.pools.table import Served

_EARLY_S = 0.001  # a timer may end so much too early
_MIXED_AT_LEAST_S = 10.0  # to the next poll where some sources of an interval answer: the default poll interval


class Intervals:
    """Remembers when each interval is over. `clock` is monotonic, in seconds; `jitter` (0 to 1) spreads many hosts.

    `failing`: the sources whose last request failed, pools by name, own deployments as None.
    """

    def __init__(
        self,
        *,
        pools: PoolOffers,
        config: ConfigInForce,
        clock: Callable[[], float],
        backoff: Callable[[], Backoff],
        pace: Pace,
        jitter: Callable[[], float],
    ) -> None:
        self._pools = pools
        self._settings = config.settings
        self._clock = clock
        self._new_backoff = backoff
        self._pace = pace
        self._jitter = jitter
        self._over_at: dict[float, float] = {}  # by interval, in seconds
        self._asked: set[float] = set()  # intervals whose sources are asked in the poll under way
        self._answered: set[float] = set()  # those of them with a source that has answered
        self._errors: dict[float, ApiError] = {}  # by interval: the first failure of a source in the poll under way
        self._backoffs: dict[float, Backoff] = {}  # by interval, where a source failed in its last poll
        self.failing: set[str | None] = set()

    @property
    def far(self) -> bool:
        """Whether polls are further apart than configured, because events call for them."""
        return self._pace.woken

    def begin_poll(self) -> None:
        """Note which intervals are over: their sources are asked in this poll."""
        now = self._clock() + _EARLY_S
        self._asked = {one for one in self._in_use() if self._over_at.get(one, now) <= now}
        self._answered, self._errors = set(), {}

    def note_answer(self, served: Served | None) -> None:
        """Note that this pool has listed its runs; None: own deployments."""
        self._answered.add(self._interval_s(served))
        self.failing.discard(_source(served))

    def note_failure(self, served: Served | None, error: ApiError | None) -> None:
        """Note that this pool could not be asked; None: own deployments. `error` is None for a fault of runnerd."""
        self.failing.add(_source(served))
        if error is not None:
            self._errors.setdefault(self._interval_s(served), error)

    def note_all_failed(self, error: ApiError) -> None:
        """Note that no source of this poll could be asked."""
        self._errors |= dict.fromkeys(self._asked, error)
        self.failing |= {None, *(served.name for served in self.asked_pools())}

    def asks_own(self) -> bool:
        """Whether this poll asks for the runs of own deployments."""
        return self._settings().api.poll_interval_s in self._asked

    def asked_pools(self) -> list[Served]:
        """Return the pools that this poll asks."""
        return [served for served in self._pools.open_pools() if self._pools.interval_s(served) in self._asked]

    def end_poll(self) -> float:
        """Begin the intervals of this poll's sources anew; return the seconds until the first of all is over.

        One whose sources all failed lasts as long as the back-off, however long the interval is.
        """
        now, used = self._clock(), self._in_use()
        spread = 1.0 + JITTER * (2.0 * self._jitter() - 1.0)
        self._over_at |= {one: now + self._lasts_s(one, self._pace.interval_s(one) * spread) for one in self._asked}
        self._over_at = {one: at for one, at in self._over_at.items() if one in used}
        return max(min(self._over_at.get(one, now) for one in used) - now, 0.0)

    def _lasts_s(self, interval_s: float, spread_s: float) -> float:
        error = self._errors.get(interval_s)
        if error is None:
            self._backoffs.pop(interval_s, None)
            return spread_s
        delay_s = self._backoffs.setdefault(interval_s, self._new_backoff()).next_s(error)
        if interval_s in self._answered:
            return min(spread_s, max(delay_s, _MIXED_AT_LEAST_S))
        # An API in maintenance is not asked more often than usual.
        maintained = isinstance(error, ApiAway) and error.maintenance
        return max(delay_s, min(interval_s, MAINTENANCE_S)) if maintained else delay_s

    def end_all(self) -> None:
        """Have everything asked in the next poll."""
        self._over_at.clear()

    def end_of(self, names: Collection[str]) -> None:
        """Have these pools asked in the next poll."""
        intervals = {self._pools.interval_s(served) for served in self._pools.open_pools() if served.name in names}
        self._over_at = {one: at for one, at in self._over_at.items() if one not in intervals}

    def _interval_s(self, served: Served | None) -> float:
        return self._settings().api.poll_interval_s if served is None else self._pools.interval_s(served)

    def _in_use(self) -> set[float]:
        """The intervals of all sources; the host's also where there are no own deployments yet."""
        pools = {self._pools.interval_s(served) for served in self._pools.open_pools()}
        return {self._settings().api.poll_interval_s, *pools}


def _source(served: Served | None) -> str | None:
    return None if served is None else served.name
