"""Computes the delays between retries: doubled after each failure up to a cap, with a part of each drawn at random.

And decides when a request has failed often enough that others wait for it no longer.

Pure, except for `uniform`.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from runnerd.core.errors import ApiAway, ApiDenied, ApiError

MAINTENANCE_S = 10.0  # between retries while the API is in maintenance: the default poll interval
ANSWERED_FAILURES_MAX = 5


class Patience:
    """Counts the failures of one request that the API answered; `over`: the API refuses it, and others wait no longer.

    That is so after ANSWERED_FAILURES_MAX failures, or twice as many that only ask to come later, as a server on
    SQLite does where writes meet; with `last`, after one. An outage is not counted: no answer, or 401.
    """

    def __init__(self, *, last: bool = False) -> None:
        self._left = 0.0 if last else float(ANSWERED_FAILURES_MAX)
        self.over = False

    def note(self, error: ApiError) -> None:
        """Count one more failure."""
        if error.may_be_own:
            self._left -= 0.5 if isinstance(error, ApiAway) and error.later else 1.0
            self.over = self._left <= 0.0


class Backoff:
    """Computes the delays of one caller that retries, in seconds.

    `jitter` is the share of each delay that is drawn at random, so that many hosts do not retry at the same moment;
    `uniform` returns a number from 0 to 1.
    """

    def __init__(
        self,
        *,
        first_s: float = 0.5,
        cap_s: float = 30.0,
        jitter: float = 0.5,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self._first_s = first_s
        self._cap_s = cap_s
        self._jitter = jitter
        self._uniform = uniform
        self._delay_s = first_s

    def reset(self) -> None:
        """Start with the first delay again, after a success."""
        self._delay_s = self._first_s

    def next_s(self, error: ApiError | None = None, *, at_least_s: float = 0.0, cap_s: float | None = None) -> float:
        """Return the delay after one more failure. `at_least_s` and `cap_s` bound this delay and those that follow it.

        A Retry-After of `error` is waited out in full, plus up to a fifth. A denial waits the cap from the start,
        because only an administrator can end it. Maintenance of the API is no failure, and lengthens no delay.
        """
        cap_s = self._cap_s if cap_s is None else cap_s
        away = error if isinstance(error, ApiAway) else None
        if away is not None and away.maintenance and away.retry_after_s is None:
            return self._spread(min(max(MAINTENANCE_S, at_least_s), cap_s))
        delay_s = min(max(self._delay_s, at_least_s), cap_s)
        if away is None or not away.maintenance:
            self._delay_s = 2.0 * delay_s
        if isinstance(error, ApiDenied):
            delay_s = cap_s
        if away is not None and away.retry_after_s is not None:
            return max(away.retry_after_s, self._first_s) * (1.0 + self._uniform() / 5)
        return self._spread(delay_s)

    def _spread(self, delay_s: float) -> float:
        return delay_s * (1.0 - self._jitter * (1.0 - self._uniform()))
