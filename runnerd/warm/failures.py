"""Remembers which warm interpreters have failed: why, and when each may be tried again.

Invariants: each reason of an interpreter is logged once; what it was started from may change, and then it is tried
at once.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from runnerd.core.place import Problem
from runnerd.log.log import Log
from runnerd.warm.plan import Plan

RETRY_FIRST_S = 60.0
RETRY_MAX_S = 3600.0
_FAILURES_MAX = 100
_FORGOTTEN_AFTER_S = 86400.0  # its deployment may be gone, or has other settings


@dataclass(slots=True)
class Failure:
    """The last failure of one interpreter; times by the monotonic clock."""

    why: str
    stamp: str
    at_s: float
    retry_at_s: float
    delay_s: float
    logged: set[str] = field(default_factory=set)


class Failures:
    """Remembers the last failure of each plan."""

    def __init__(self, *, log: Log) -> None:
        self._log = log
        self._failures: dict[Plan, Failure] = {}

    def note(self, plan: Plan, *, why: str, stamp: str, at_s: float) -> None:
        """Note that the interpreter has failed; the delay before it is tried again doubles each time."""
        last = self._failures.pop(plan, None)
        delay_s = RETRY_FIRST_S if last is None or last.stamp != stamp else min(2 * last.delay_s, RETRY_MAX_S)
        logged = last.logged if last is not None else set()
        if why not in logged:
            self._log.warning(
                "a warm interpreter has failed; its runs start cold", interpreter=plan.describe(), why=why
            )
        if len(logged) > _FAILURES_MAX:
            logged.clear()
        failure = Failure(why=why, stamp=stamp, at_s=at_s, retry_at_s=at_s + delay_s, delay_s=delay_s)
        failure.logged = {*logged, why}
        self._failures[plan] = failure
        while len(self._failures) > _FAILURES_MAX:
            del self._failures[next(iter(self._failures))]

    def clear(self, plan: Plan) -> None:
        """Note that a run was forked from such an interpreter."""
        self._failures.pop(plan, None)

    def reason(self, plan: Plan, *, stamp: str, at_s: float) -> str | None:
        """Say why the interpreter is not to be tried now; None where it is."""
        failure = self._failures.get(plan)
        if failure is None or failure.stamp != stamp or at_s >= failure.retry_at_s:
            return None
        return failure.why

    def forget_old(self, *, at_s: float) -> None:
        """Forget what has not failed again for a day."""
        old = [plan for plan, failure in self._failures.items() if at_s - failure.at_s > _FORGOTTEN_AFTER_S]
        for plan in old:
            del self._failures[plan]

    def failed(self) -> dict[Plan, str]:
        """Return why each interpreter has failed."""
        return {plan: failure.why for plan, failure in self._failures.items()}

    def problems(self, *, but: Collection[Plan] = ()) -> list[Problem]:
        """Return what an administrator has to correct, without these plans."""
        return [Problem(message=_message(plan, why)) for plan, why in self.failed().items() if plan not in but]


def _message(plan: Plan, why: str) -> str:
    remedy = (
        "correct run.preload, or set run.start to cold" if plan.preload else "correct that, or set run.start to cold"
    )
    return f"cannot start a warm interpreter of {plan.describe()}, so its runs start cold: {why}; {remedy}"
