"""How things stand with the API, kept from the outcome of each request.

`since` moves only when the condition changes; a condition other than OK counts as one more outage when it ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from runnerd.model import ApiCondition, ApiHealth


class HealthBook:
    """Notes outcomes; tells `on_health` whenever the condition or its detail is another one."""

    def __init__(self, *, now: Callable[[], datetime], on_health: Callable[[ApiHealth], None] | None = None) -> None:
        self._now = now
        self._tell = on_health
        self.health = ApiHealth(condition=ApiCondition.UNREACHABLE, since=now(), detail="not asked yet")
        self.epoch = 0  # counts the troubles so far; what was learnt in an older epoch may be out of date

    def ok(self) -> None:
        """The API answered sensibly."""
        self._note(ApiCondition.OK, "the API answers")

    def degraded(self, detail: str) -> None:
        """It answers, but refuses us or errs."""
        self._note(ApiCondition.DEGRADED, detail)

    def unreachable(self, detail: str) -> None:
        """It does not answer."""
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
