"""Finds the late runs among those listed, and skips in the API those that must not start any more (ADR 18).

Invariants: a run is late if it fell due while no runnerd was polling for it, so one that waits here for a slot never
becomes late; a run is read before it is skipped, because the server would let CANCELLED overwrite the state of a run
that another host has claimed meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from runnerd.config.in_force import ConfigInForce
from runnerd.core.backoff import Backoff
from runnerd.core.errors import ApiAway, ApiRejected
from runnerd.core.pace import Pace
from runnerd.core.prefect import FlowRun, due
from runnerd.core.settings import LateSettings
from runnerd.polling.lateness import Lateness, judge_late, past_time
from runnerd.prefect_api.client import PrefectApi
from runnerd.runs.claiming import cancel_unclaimed
from runnerd.system.ambient import Ambient

_REFUSED_FIRST_S = 60.0
_REFUSED_CAP_S = 3600.0
_FORGET_REFUSED_AFTER = timedelta(hours=2)


class LateRuns:
    """Remembers which runs were on offer in time, and skips late runs."""

    def __init__(
        self,
        *,
        api: PrefectApi,
        config: ConfigInForce,
        pace: Pace,
        ambient: Ambient,
        on_late: Callable[[FlowRun], None],
    ) -> None:
        """`on_late` is called with a run that is past its time, at each poll that lists the run."""
        self._api = api
        self._on_late = on_late
        self._config = config
        self._pace = pace
        self._log = ambient.log
        self._now = ambient.now
        self._attempts = _SkipAttempts(now=ambient.now)
        self._polled_at: datetime | None = None  # when the API last answered
        self._answered = False  # the API answered this poll
        self._failed_before = False  # the API answered the last skip with a failure
        self._in_time: set[str] = set()  # runs, by id, that were on offer in time in this poll
        self._in_time_before: set[str] = set()  # and in the poll before

    def begin_poll(self) -> None:
        """Begin a new poll. After `late.after` without an answer, being on offer in time does not count any more.

        Polls that are as far apart as they are to be are no such time, however short `late.after` is.
        """
        if self._answered:  # else the runs that were on offer in time would be forgotten by two refused polls
            self._in_time_before, self._in_time, self._answered = self._in_time, set(), False
        without_s = max(self._settings().after_s, 2 * self._pace.longest_s(self._config.settings().api.poll_interval_s))
        if self._polled_at is None or (self._now() - self._polled_at).total_seconds() > without_s:
            self._in_time_before.clear()
        self._failed_before = False
        self._attempts.begin_poll()

    def judge(self, found: Sequence[FlowRun]) -> Lateness:
        """Apply late.policy to a page of this poll, and remember the runs that are on offer in time."""
        now, late = self._now(), self._settings()
        for run in past_time(found, now=now, after_s=late.after_s):
            self._on_late(run)
        self._polled_at, self._answered = now, True
        in_time = self._in_time_before | self._in_time
        lateness = judge_late(found, now=now, after_s=late.after_s, policy=late.policy, in_time=in_time)
        self._in_time |= {run.id for run in lateness.keep} - {run.id for run in lateness.spared}
        return lateness

    def is_left_alone(self, run_id: str) -> bool:
        """Whether this poll has skipped the run already, or the API refused that a short time ago."""
        return self._attempts.is_left_alone(run_id)

    async def skip_run(self, run: FlowRun) -> bool:
        """Cancel a late run in the API, so that no other host starts it either; False when the API refuses.

        Raises ApiAway, ApiDenied; an answer about one run that is no use is raised for the second run in turn only.
        """
        try:
            refusal = await self._cancel_run(run)
        except ApiRejected as error:  # the other late runs must not wait for this one
            refusal = str(error)
        except ApiAway as error:  # nor for one whose answer cannot be read, or whose state the server fails at
            if not error.answered or self._failed_before:
                raise
            self._failed_before = True
            refusal = str(error)
        else:
            self._failed_before = False
        if refusal is None:
            self._attempts.note_skipped(run.id)
        elif self._attempts.note_refused(run.id):  # every poll finds the run: one line is enough
            self._log.error("cannot skip a late run", run=run.id, why=refusal)
        return refusal is None

    async def _cancel_run(self, run: FlowRun) -> str | None:
        """Cancel the run unless it is not scheduled any more; why the API refuses, None when it does not."""
        why = f"skipped: it fell due at {due(run)} and late.policy is {self._settings().policy}"
        end = await cancel_unclaimed(self._api, run.id, message=why)
        if end.cancelled:
            self._log.info("late run skipped", run=run.id, due=due(run))
        return end.refusal

    def _settings(self) -> LateSettings:
        return self._config.settings().late


class _SkipAttempts:
    """Remembers which late runs are not to be tried now."""

    def __init__(self, *, now: Callable[[], datetime]) -> None:
        self._now = now
        self._skipped: set[str] = set()  # runs, by id, that were skipped in this poll
        self._refused: dict[str, tuple[Backoff, datetime]] = {}  # by run id; until when it is left alone

    def begin_poll(self) -> None:
        self._skipped.clear()

    def is_left_alone(self, run_id: str) -> bool:
        refusal = self._refused.get(run_id)
        return run_id in self._skipped or (refusal is not None and self._now() < refusal[1])

    def note_skipped(self, run_id: str) -> None:
        self._skipped.add(run_id)
        self._refused.pop(run_id, None)

    def note_refused(self, run_id: str) -> bool:
        """Leave the run alone for a while, longer each time; return whether this is the first time."""
        now = self._now()
        for stale in [key for key, (_, until) in self._refused.items() if until + _FORGET_REFUSED_AFTER < now]:
            del self._refused[stale]
        earlier = self._refused.get(run_id)
        backoff = earlier[0] if earlier else Backoff(first_s=_REFUSED_FIRST_S, cap_s=_REFUSED_CAP_S, jitter=0.0)
        self._refused[run_id] = (backoff, now + timedelta(seconds=backoff.next_s()))
        return earlier is None
