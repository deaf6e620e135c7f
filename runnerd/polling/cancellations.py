"""Asks the API for runs of this host that are to be cancelled: at an interval, and when an event says so.

Invariants: no request is sent while no run is under way; a failed request costs time and ends nothing; a run that
cannot be cancelled keeps no other run from being cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib

from runnerd.config.in_force import ConfigInForce
from runnerd.core.errors import ApiError
from runnerd.core.pace import Pace
from runnerd.core.prefect import StateType
from runnerd.core.wakes import Wakes
from runnerd.polling.progress import BACKOFF_BOUND_S, REQUEST_BOUND_S
from runnerd.prefect_api.client import PrefectApi
from runnerd.runs.supervisor import Supervisor
from runnerd.system.ambient import Ambient
from runnerd.system.containment import Containment

_INTERVAL_S = 5.0
_WOKEN_S = 30.0  # while events tell of cancels
# Prefect sends the event of a state before it commits the state: the poll that the event calls for may come too soon.
_AFTER_WAKE_S = (1.0, 5.0)
_BETWEEN_S = 0.25  # at least, from one poll to the next, however many events come
_EARLY_S = 0.1  # a poll may come so much before its interval is over


class Cancellations:
    """Cancels runs that the API wants ended: `run` polls for ever, `poll_once` once."""

    def __init__(
        self,
        *,
        api: PrefectApi,
        supervisor: Supervisor,
        config: ConfigInForce,
        pace: Pace,
        wakes: Wakes,
        ambient: Ambient,
    ) -> None:
        self._api = api
        self._supervisor = supervisor
        self._settings = config.settings
        self._pace = pace
        self._woken = wakes.cancel
        self._pulse, self._clock = ambient.pulse, ambient.clock
        self._backoff = ambient.backoff
        self._contained = Containment(log=ambient.log, loop="cancellations")
        self._again: tuple[float, ...] = ()  # seconds between the next polls
        self._cancelled_at: dict[str, float] = {}  # by id of a run that is CANCELLED: when that was seen first

    async def run(self) -> None:
        """Poll for ever."""
        backoff = self._backoff()
        while True:
            began = self._clock()
            self._again = _AFTER_WAKE_S if self._woken.is_set() else self._again[1:]
            self._woken.clear()
            self._pulse.beat("cancelling", within_s=_WOKEN_S + REQUEST_BOUND_S)
            failed = False
            try:
                with self._contained.item("poll") as item:
                    await self.poll_once()
                failed = item.why is not None
                backoff.reset()
            except ApiError as error:
                failed = True
                self._pulse.beat("cancelling", within_s=BACKOFF_BOUND_S)
                await asyncio.sleep(backoff.next_s(error))
            await self._rest(self._next_s(failed=failed))
            await asyncio.sleep(max(0.0, began + _BETWEEN_S - self._clock()))

    async def _rest(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()

    def _next_s(self, *, failed: bool) -> float:
        """Return the seconds until the next poll: the usual interval while a run is known to be CANCELLED.

        And after a poll that has failed: it was perhaps the one that an event called for.
        """
        usual_s = self._interval_s()
        if self._again:
            return min(self._again[0], usual_s)
        soon = failed or self._cancelled_at
        return usual_s if soon else self._pace.check_s(usual_s, woken_s=max(usual_s, _WOKEN_S))

    def _interval_s(self) -> float:
        return min(_INTERVAL_S, self._settings().api.poll_interval_s)

    async def poll_once(self) -> None:
        """Cancel the runs that are CANCELLING in the API, or CANCELLED there for an interval. Raises ApiError."""
        ours = self._supervisor.ids()
        if not ours:
            self._cancelled_at.clear()
            return
        found = await self._api.runs_of(ours, states=(StateType.CANCELLING, StateType.CANCELLED))
        to_cancel = [run.id for run in found if run.state.type is StateType.CANCELLING]
        # A process that was sent the intent reports CANCELLED itself just before it exits: give it one interval.
        now, before = self._clock(), self._cancelled_at
        cancelled = sorted(run.id for run in found if run.state.type is StateType.CANCELLED)
        self._cancelled_at = {run_id: before.get(run_id, now) for run_id in cancelled}
        to_cancel += [one for one, at in self._cancelled_at.items() if now - at > self._interval_s() - _EARLY_S]
        for run_id in to_cancel:
            with self._contained.item(f"run {run_id}"):
                self._supervisor.cancel([run_id], announce=False)
