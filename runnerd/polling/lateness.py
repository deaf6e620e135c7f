"""late.policy at work: which of the runs on offer are late, and letting go of those that are not to start any more.

Invariants: late is what fell due while nobody looked, so a run that waits here for a slot never becomes late; a run is
read before it is let go of, because the server would let a late verdict overwrite whatever another host made of it.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from runnerd.config.in_force import ConfigInForce
from runnerd.core.errors import ApiRejected
from runnerd.core.prefect import FlowRun, StateType, Verdict, due
from runnerd.core.settings import LatePolicy, LateSettings
from runnerd.prefect_api.answers import Answer
from runnerd.system.ambient import Ambient

_REFUSED_FIRST_S = 60.0
_REFUSED_CAP_S = 3600.0


class LateApi(Protocol):
    """What letting go asks of Prefect."""

    async def read_run(self, run_id: str) -> FlowRun | None: ...
    async def propose(self, run_id: str, verdict: Verdict, *, transition_id: str) -> Answer: ...


class LateRuns:
    """`between` is called after each run that was let go of: there may be two hundred, and others must not wait."""

    def __init__(
        self,
        *,
        api: LateApi,
        config: ConfigInForce,
        ambient: Ambient,
        between: Callable[[], None],
    ) -> None:
        self._api = api
        self._config = config
        self._log = ambient.log
        self._now = ambient.now
        self._between = between
        self._looked_at: datetime | None = None
        self._waiting: set[str] = set()  # on offer here in time, by this look and by the one before
        self._waited: set[str] = set()
        self._gone: set[str] = set()  # let go of since this look began
        self._refused: dict[str, tuple[int, datetime]] = {}  # how often, and until when it is left alone

    def _settings(self) -> LateSettings:
        return self._config.settings().late

    def begin(self) -> None:
        """A new look at what is on offer. After a long time without one, whatever waited is as late as the others."""
        now = self._now()
        self._waited, self._waiting = self._waiting, set()
        if self._looked_at is None or now - self._looked_at > timedelta(seconds=self._settings().after_s):
            self._waited.clear()
        self._looked_at = now
        self._gone.clear()

    def judge(self, found: Sequence[FlowRun]) -> Lateness:
        """Apply late.policy to what this look has found, or to a part of it."""
        now, late = self._now(), self._settings()
        in_time = self._waited | self._waiting
        lateness = judge_late(found, now=now, after_s=late.after_s, policy=late.policy, in_time=in_time)
        self._waiting |= {run.id for run in lateness.keep} - {run.id for run in lateness.spared}
        return lateness

    async def let_go(self, runs: Sequence[FlowRun]) -> bool:
        """Tell the API, so that nobody else starts them either; whether any is gone by that."""
        before = len(self._gone)
        for run in runs:
            if run.id in self._gone or self._left_alone(run.id):
                continue
            try:
                if await self._let_go(run):
                    self._gone.add(run.id)
            except ApiRejected as error:  # of this run: the others must not wait for it
                self._note_refusal(run.id, str(error))
            self._between()
        return len(self._gone) > before

    async def _let_go(self, run: FlowRun) -> bool:
        found = await self._api.read_run(run.id)
        if found is None or found.state.type is not StateType.SCHEDULED:
            return True  # somebody else was quicker
        why = f"skipped: it fell due at {due(run)} and late.policy is {self._settings().policy}"
        verdict = Verdict(type=StateType.CANCELLED, name="Cancelled", message=why)
        answer = await self._api.propose(run.id, verdict, transition_id=str(uuid.uuid4()))
        if not answer.accepted and not answer.gone:
            self._note_refusal(run.id, answer.reason or "the API does not accept it")
            return False
        self._refused.pop(run.id, None)
        self._log.info("late run skipped", run=run.id, due=due(run))
        return True

    def _left_alone(self, run_id: str) -> bool:
        refusal = self._refused.get(run_id)
        return refusal is not None and self._now() < refusal[1]

    def _note_refusal(self, run_id: str, why: str) -> None:
        """It is tried again, later each time; said once, because it is found at every poll."""
        now = self._now()
        for stale in [key for key, (_, until) in self._refused.items() if until + timedelta(hours=2) < now]:
            del self._refused[stale]
        count = self._refused[run_id][0] + 1 if run_id in self._refused else 1
        wait_s = min(_REFUSED_CAP_S, _REFUSED_FIRST_S * 2 ** min(count - 1, 10))
        self._refused[run_id] = (count, now + timedelta(seconds=wait_s))
        if count == 1:
            self._log.error("cannot let go of a late run", run=run_id, why=why)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lateness:
    """The offers to keep, those among them that are late as well, and those late.policy says to let go."""

    keep: tuple[FlowRun, ...]
    drop: tuple[FlowRun, ...]
    spared: tuple[FlowRun, ...] = ()


_NOT_BEGUN = ("Scheduled", "Late")  # retries, resumed and rescheduled runs have other names: those are wanted


def judge_late(
    offers: Sequence[FlowRun], *, now: datetime, after_s: float, policy: LatePolicy, in_time: Collection[str] = ()
) -> Lateness:
    """Apply late.policy. Only what a schedule made and nobody has begun can be late; what was asked for is always run.

    `skip` lets go of every run that fell due more than `after_s` ago, but for those that were on offer `in_time`;
    `latest` keeps the newest of each deployment's.
    """
    if policy == "run":
        return Lateness(keep=tuple(offers), drop=())
    limit = now - timedelta(seconds=after_s)
    late = [
        run
        for run in offers
        if run.auto_scheduled and run.state.name in _NOT_BEGUN and run.id not in in_time and (due(run) or now) < limit
    ]
    spared: set[str] = set()
    if policy == "latest":
        newest: dict[str | None, FlowRun] = {}
        for run in late:
            rival = newest.get(run.deployment_id)
            if rival is None or (due(run) or now) > (due(rival) or now):
                newest[run.deployment_id] = run
        spared = {run.id for run in newest.values()}
    gone = {run.id for run in late} - spared
    return Lateness(
        keep=tuple(run for run in offers if run.id not in gone),
        drop=tuple(run for run in offers if run.id in gone),
        spared=tuple(run for run in late if run.id in spared),
    )
