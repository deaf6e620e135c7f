"""Remembers which requests a server does not want before the time of its Retry-After (HTTP 429).

What is refused is not sent again until then, whoever asks; nothing else waits. On Prefect Cloud all requests of an
account share one limit, but for events and logs, which share another: there a refusal is for all of them. Elsewhere a
refusal says nothing about requests of another kind: each is tried, and refused for itself.

Source: docs.prefect.io/v3/concepts/rate-limits.
"""

from __future__ import annotations

from collections.abc import Callable

_ALL, _RECORDS = "all", "events and logs"


class RateLimits:
    """Answers from memory. `shared`: one limit is for all requests; `clock` is monotonic, in seconds."""

    def __init__(self, *, shared: bool, clock: Callable[[], float]) -> None:
        self._shared = shared
        self._clock = clock
        self._until: dict[str, float] = {}  # by kind of request, or by shared limit

    def note(self, kind: str, *, wait_s: float) -> None:
        """Note that the server refuses requests of this kind (a method and a path without ids) for so long.

        A shorter time does not end a longer one: answers to requests that were under way together come in any order.
        """
        now, limit = self._clock(), self._limit_of(kind)
        self._until = {one: until for one, until in self._until.items() if until > now}
        self._until[limit] = max(self._until.get(limit, 0.0), now + wait_s)

    def wait_s(self, kind: str) -> float:
        """Return the seconds in which this kind of request is not wanted; 0 where the server wants it."""
        return max(0.0, self._until.get(self._limit_of(kind), 0.0) - self._clock())

    def _limit_of(self, kind: str) -> str:
        if not self._shared:
            return kind
        return _RECORDS if kind.partition(" ")[2].startswith(("/events", "/logs")) else _ALL
