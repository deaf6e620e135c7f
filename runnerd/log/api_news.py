"""Log lines about the API's health: one when it changes, none for a hiccup."""

from __future__ import annotations

from collections.abc import Callable

from runnerd.core.prefect import ApiCondition, ApiHealth
from runnerd.log.alerts import alert_of_api
from runnerd.log.log import Log


class ApiNews:
    """Tells the log how things stand with the API: once a change, and not the hiccups.

    A busy SQLite server answers 503 now and then; what heals within HICCUP_S is nobody's news. An API that comes and
    goes is: but each recovery has to last longer than the one before until it is believed, so an hour of that is a
    handful of lines. `later` calls a function after so many seconds.
    """

    HICCUP_S = 5.0
    OTHER_TROUBLE_S = 30.0
    CALM_S = (0.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0)  # how long the next recovery of an unsteady API must last
    STEADY_S = 900.0  # who was well for so long is believed at once again

    def __init__(self, *, url: str, log: Log, later: Callable[[float, Callable[[], None]], None]) -> None:
        self._url = url
        self._log = log
        self._later = later
        self._told: ApiCondition | None = None
        self._latest: ApiHealth | None = None
        self._recoveries = 0  # told since it was last steady

    def note(self, health: ApiHealth) -> None:
        """Things stand so now."""
        before, self._latest = self._latest, health
        if before is not None and before.condition is health.condition:
            return
        if before is not None and before.condition is ApiCondition.OK:
            lasted_s = (health.since - before.since).total_seconds()
            self._recoveries = self._recoveries if lasted_s < self.STEADY_S else 0
        if health.condition is self._told:
            return
        wait_s = self._patience_s(health.condition)
        if wait_s:
            self._later(wait_s, lambda: self._tell(health))
        else:
            self._tell(health)

    def _patience_s(self, condition: ApiCondition) -> float:
        """How long it has to last until it is news."""
        if condition is ApiCondition.OK:
            return 0.0 if self._told is None else self.CALM_S[min(self._recoveries, len(self.CALM_S) - 1)]
        if self._told not in (None, ApiCondition.OK):
            return self.OTHER_TROUBLE_S
        return self.HICCUP_S if condition is ApiCondition.DEGRADED else 0.0

    def _tell(self, noted: ApiHealth) -> None:
        """Say it, if it has lasted; in the words of now."""
        health = self._latest
        if health is None or (health.condition, health.since) != (noted.condition, noted.since):
            return
        if health.condition is ApiCondition.OK and self._told is not None:
            self._recoveries += 1
        self._told = health.condition
        say = self._log.info if health.condition is ApiCondition.OK else self._log.warning
        alert = alert_of_api(health)
        say("api", state=health.condition, detail=health.detail, url=self._url, alert=alert)
