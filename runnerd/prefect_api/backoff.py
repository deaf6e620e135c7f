"""How callers wait out a trouble with the API: capped, jittered back-off that honours Retry-After, for ever.

Nothing ends because the API is away. ApiRejected passes through: asking again would not help.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from runnerd.core.errors import ApiAway, ApiDenied, ApiError

T = TypeVar("T")


class Backoff:
    """The next wait in seconds: doubling from `first_s` up to `cap_s`, each drawn from its upper half.

    A Retry-After is waited out in full, plus up to a fifth, so that a fleet of hosts does not come back as one.
    A denial waits `cap_s` from the start: only an administrator can end it.
    """

    def __init__(
        self, *, first_s: float = 0.5, cap_s: float = 30.0, uniform: Callable[[], float] = random.random
    ) -> None:
        self._first_s = first_s
        self._cap_s = cap_s
        self._uniform = uniform
        self._failures = 0

    def reset(self) -> None:
        """It worked: start small next time."""
        self._failures = 0

    def next_s(self, error: ApiError) -> float:
        """How long to wait after one more failure."""
        # The exponent is bounded: after a week of failures 2.0 ** n would overflow.
        doubled = min(self._cap_s, self._first_s * 2.0 ** min(self._failures, 30))
        self._failures += 1
        if isinstance(error, ApiDenied):
            doubled = self._cap_s
        wished = error.retry_after_s if isinstance(error, ApiAway) else None
        if wished is not None:
            return max(wished, self._first_s) * (1.0 + self._uniform() / 5)
        return doubled * (0.5 + self._uniform() / 2)


async def persist(call: Callable[[], Awaitable[T]], *, backoff: Backoff) -> T:
    """Repeat `call` until it is answered. Only for calls that are safe to repeat. Raises ApiRejected."""
    while True:
        try:
            return await call()
        except (ApiAway, ApiDenied) as error:
            await asyncio.sleep(backoff.next_s(error))
