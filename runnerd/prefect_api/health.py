"""How things stand with the API, kept from the outcome of each request.

`since` moves only when the condition changes; a condition other than OK counts as one more outage when it ends. What
fails of one kind of request is not made good by the success of another: an API that can be read and not written to is
not well, however often it is polled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from runnerd.core.prefect import ApiCondition, ApiHealth

# A request that somebody still wants is repeated within less; one that nobody repeats must not look like trouble for
# ever.
STALE = timedelta(seconds=45)


class HealthBook:
    """Notes outcomes; tells `on_health` whenever the condition or its detail is another one."""

    def __init__(self, *, now: Callable[[], datetime], on_health: Callable[[ApiHealth], None] | None = None) -> None:
        self._now = now
        self._tell = on_health
        self._failing: dict[str, tuple[datetime, str]] = {}  # by kind of request: when it last failed, and how
        self.health = ApiHealth(condition=ApiCondition.UNREACHABLE, since=now(), detail="not asked yet")
        self.epoch = 0  # counts the troubles so far; what was learnt in an older epoch may be out of date

    def ok(self, kind: str) -> None:
        """The API answered a request of this kind sensibly; if it had failed, the others may be well again too."""
        now = self._now()
        recovered = kind in self._failing
        self._failing = {k: one for k, one in self._failing.items() if not recovered and now - one[0] < STALE}
        if self._failing:
            _, detail = max(self._failing.values())
            self._note(ApiCondition.DEGRADED, detail)
        else:
            self._note(ApiCondition.OK, "the API answers")

    def degraded(self, kind: str, detail: str) -> None:
        """It answers, but refuses us or errs."""
        self._failing[kind] = (self._now(), detail)
        self._note(ApiCondition.DEGRADED, detail)

    def unreachable(self, detail: str) -> None:
        """It does not answer."""
        self._failing.clear()  # whatever it refused before, it is another matter now
        self._note(ApiCondition.UNREACHABLE, detail)

    def _note(self, condition: ApiCondition, detail: str) -> None:
        old = self.health
        if condition is not ApiCondition.OK and old.condition is ApiCondition.OK:
            self.epoch += 1
        if condition is not old.condition:
            self.health = ApiHealth(condition=condition, since=self._now(), detail=detail)
        elif detail != old.detail:
            self.health = replace(old, detail=detail)
        else:
            return
        if self._tell is not None:
            self._tell(self.health)
