"""Computes the health of the API from the outcome of each request.

`since` changes only with the condition, and not for a failure of a few seconds. A success of one kind of request does
not end the failure of another kind: an API that answers polls and refuses writes is degraded, however many polls
succeed. Maintenance is a condition of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import NamedTuple

from runnerd.core.prefect import ApiCondition, ApiHealth

# A failed request that is still wanted is repeated sooner; a failure that is not repeated must not count for ever.
STALE = timedelta(seconds=45)
# A busy SQLite server answers 503 now and then. No log line names an interruption as short as that.
HICCUP = timedelta(seconds=5)


class _Failure(NamedTuple):
    """When a kind of request last failed, how, and for how long that counts unless it is repeated."""

    at: datetime
    condition: ApiCondition
    detail: str
    lasts: timedelta


class HealthBook:
    """Stores outcomes, and calls `on_health` when the condition or its detail changes."""

    def __init__(self, *, now: Callable[[], datetime], on_health: Callable[[ApiHealth], None] | None = None) -> None:
        self._now = now
        self._on_health = on_health
        self._failing: dict[str, _Failure] = {}  # by kind of request
        self.health = ApiHealth(condition=ApiCondition.UNREACHABLE, since=now(), detail="no answer yet")
        self._ok_since: datetime | None = None  # when the API was last OK before the present trouble
        self.epoch = 0  # how many outages have begun; facts about the server from an older epoch may be outdated

    def ok(self, kind: str) -> None:
        """Note a success of this kind of request. If that kind had failed, forget the failures of all kinds."""
        now = self._now()
        recovered = kind in self._failing
        self._failing = {k: one for k, one in self._failing.items() if not recovered and now - one.at < one.lasts}
        if self._failing:
            last = max(self._failing.values())
            self._note(last.condition, last.detail)
        else:
            self._note(ApiCondition.OK, "the API answers")

    def degraded(self, kind: str, detail: str, *, lasts: timedelta = STALE) -> None:
        """Note an answer that denies access or reports an error of the server, or that this kind gets no answers.

        `lasts`: a failure that has not been repeated for so long is forgotten.
        """
        self._failing[kind] = _Failure(self._now(), ApiCondition.DEGRADED, detail, lasts)
        self._note(ApiCondition.DEGRADED, detail)

    def maintenance(self, kind: str, detail: str) -> None:
        """Note an answer that asks to wait until the maintenance of the server is over."""
        self._failing[kind] = _Failure(self._now(), ApiCondition.MAINTENANCE, detail, STALE)
        self._note(ApiCondition.MAINTENANCE, detail)

    def unreachable(self, detail: str) -> None:
        """Note a request without an answer."""
        self._failing.clear()  # earlier refusals say nothing about the server that answers next
        self._note(ApiCondition.UNREACHABLE, detail)

    def _note(self, condition: ApiCondition, detail: str) -> None:
        old = self.health
        if condition is not ApiCondition.OK and old.condition is ApiCondition.OK:
            self.epoch += 1
        if condition is not old.condition:
            since = self._now()
            if old.condition is ApiCondition.OK:
                self._ok_since = old.since
            short = old.condition is ApiCondition.DEGRADED and since - old.since < HICCUP
            if condition is ApiCondition.OK and short and self._ok_since is not None:
                since = self._ok_since
            self.health = ApiHealth(condition=condition, since=since, detail=detail)
        elif detail != old.detail:
            self.health = replace(old, detail=detail)
        else:
            return
        if self._on_health is not None:
            self._on_health(self.health)
