"""Remembers which requests a server does not want before the time of its Retry-After (HTTP 429).

What is refused is not sent again until then, whoever asks; nothing else waits. On Prefect Cloud all requests of an
account share one limit, but for events and logs, which share another: there a refusal is for all of its kind. So it is
elsewhere once two kinds of requests are refused at the same time: a proxy limits by address or by key, not by route.

Source: docs.prefect.io/v3/concepts/rate-limits.
"""

from __future__ import annotations

from collections.abc import Callable

_RECORDS = ("/events", "/logs")  # paths of what counts into the limit of events and logs
_ALL = ""


class RateLimits:
    """Answers from memory. `shared`: one limit is for all requests; `clock` is monotonic, in seconds."""

    def __init__(self, *, shared: bool, clock: Callable[[], float]) -> None:
        self._shared = shared
        self._clock = clock
        self._until: dict[str, float] = {}  # by kind of request, or all of them

    def note(self, kind: str, *, wait_s: float) -> None:
        """Note that the server refuses requests of this kind (a method and a path without ids) for so long."""
        now = self._clock()
        self._until = {one: until for one, until in self._until.items() if until > now}
        refused = [until for one, until in self._until.items() if one not in (kind, _ALL) and not _is_record(one)]
        until = self._until[self._limit_of(kind)] = now + wait_s
        if refused and not _is_record(kind):
            self._until[_ALL] = min(until, *refused)

    def wait_s(self, kind: str) -> float:
        """Return the seconds in which this kind of request is not wanted; 0 where the server wants it."""
        own = self._until.get(self._limit_of(kind), 0.0)
        of_all = 0.0 if _is_record(kind) else self._until.get(_ALL, 0.0)
        return max(own, of_all, self._clock()) - self._clock()

    def _limit_of(self, kind: str) -> str:
        if _is_record(kind):
            return _RECORDS[0] if self._shared else kind
        return _ALL if self._shared else kind


def _is_record(kind: str) -> bool:
    return kind.partition(" ")[2].startswith(_RECORDS) or kind in _RECORDS
