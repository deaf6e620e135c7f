"""Logs changes of the API's health, except short ones."""

from __future__ import annotations

from collections.abc import Callable

from runnerd.core.prefect import ApiCondition, ApiHealth
from runnerd.log.alerts import alert_of_api
from runnerd.log.log import Log


class ApiHealthLog:
    """Logs each change of the API's condition once the change has lasted long enough.

    A busy SQLite server answers 503 now and then, so a degraded state shorter than HICCUP_S is not logged. An API that
    keeps failing and recovering is logged, but each recovery has to last longer than the one before, so that an hour
    of this makes a handful of lines. `later` calls a function after some seconds.
    """

    HICCUP_S = 5.0  # how long a degraded state after OK must last to be logged
    OTHER_TROUBLE_S = 30.0  # how long a change from one failure to another must last to be logged
    CALM_S = (0.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0)  # how long the nth recovery must last to be logged
    STEADY_S = 900.0  # after being OK for so long, recoveries are counted from 0 again

    def __init__(self, *, url: str, log: Log, later: Callable[[float, Callable[[], None]], None]) -> None:
        self._url = url
        self._log = log
        self._later = later
        self._logged: ApiCondition | None = None
        self._latest: ApiHealth | None = None
        self._recoveries = 0  # logged since the API was last OK for STEADY_S

    def note_health(self, health: ApiHealth) -> None:
        """Take the API's present health; log it now or later if it is a change."""
        before, self._latest = self._latest, health
        if before is not None and before.condition is health.condition:
            return
        if before is not None and before.condition is ApiCondition.OK:
            lasted_s = (health.since - before.since).total_seconds()
            self._recoveries = self._recoveries if lasted_s < self.STEADY_S else 0
        if health.condition is self._logged:
            return
        delay_s = self._delay_s(health.condition)
        if delay_s:
            self._later(delay_s, lambda: self._log_if_unchanged(health))
        else:
            self._log_if_unchanged(health)

    def note_left_out(self, words: str) -> None:
        """Log an item that was left out of an answer."""
        self._log.warning("left out of an answer of the API, because it is unreadable", what=words)

    def _delay_s(self, condition: ApiCondition) -> float:
        """Return how long the condition has to last before it is logged."""
        if condition is ApiCondition.OK:
            return 0.0 if self._logged is None else self.CALM_S[min(self._recoveries, len(self.CALM_S) - 1)]
        if condition is ApiCondition.MAINTENANCE:
            return 0.0
        if self._logged not in (None, ApiCondition.OK):
            return self.OTHER_TROUBLE_S
        return self.HICCUP_S if condition is ApiCondition.DEGRADED else 0.0

    def _log_if_unchanged(self, noted: ApiHealth) -> None:
        """Log the latest health if its condition is still the noted one; its detail may be newer."""
        health = self._latest
        if health is None or (health.condition, health.since) != (noted.condition, noted.since):
            return
        if health.condition is ApiCondition.OK and self._logged is not None:
            self._recoveries += 1
        self._logged = health.condition
        write = self._log.info if health.condition in (ApiCondition.OK, ApiCondition.MAINTENANCE) else self._log.warning
        alert = alert_of_api(health)
        write("api", state=health.condition, detail=health.detail, url=self._url, alert=alert)
