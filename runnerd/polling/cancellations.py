"""Polls the API for runs of this host that are to be cancelled.

Invariants: no request is sent while no run is under way; a failed request costs time and ends nothing; a run that
cannot be cancelled keeps no other run from being cancelled.
"""

from __future__ import annotations

import asyncio

from runnerd.config.in_force import ConfigInForce
from runnerd.core.errors import ApiError
from runnerd.core.prefect import StateType
from runnerd.polling.progress import BACKOFF_BOUND_S, REQUEST_BOUND_S
from runnerd.prefect_api.client import PrefectApi
from runnerd.runs.supervisor import Supervisor
from runnerd.system.ambient import Ambient
from runnerd.system.containment import Containment

_INTERVAL_S = 5.0


class Cancellations:
    """Cancels runs that the API wants ended: `run` polls for ever, `poll_once` once."""

    def __init__(
        self,
        *,
        api: PrefectApi,
        supervisor: Supervisor,
        config: ConfigInForce,
        ambient: Ambient,
    ) -> None:
        self._api = api
        self._supervisor = supervisor
        self._settings = config.settings
        self._pulse = ambient.pulse
        self._backoff = ambient.backoff
        self._contained = Containment(log=ambient.log, loop="cancellations")
        self._seen_cancelled: set[str] = set()  # runs, by id, that were CANCELLED at the last poll

    async def run(self) -> None:
        """Poll for ever."""
        backoff = self._backoff()
        while True:
            interval = min(_INTERVAL_S, self._settings().api.poll_interval_s)
            self._pulse.beat("cancelling", within_s=interval + REQUEST_BOUND_S)
            try:
                with self._contained.item("poll"):
                    await self.poll_once()
                backoff.reset()
            except ApiError as error:
                self._pulse.beat("cancelling", within_s=BACKOFF_BOUND_S)
                await asyncio.sleep(backoff.next_s(error))
            await asyncio.sleep(interval)

    async def poll_once(self) -> None:
        """Cancel the runs that are CANCELLING in the API, or CANCELLED there for two polls. Raises ApiError."""
        ours = self._supervisor.ids()
        if not ours:
            self._seen_cancelled.clear()
            return
        found = await self._api.runs_of(ours, states=(StateType.CANCELLING, StateType.CANCELLED))
        to_cancel = [run.id for run in found if run.state.type is StateType.CANCELLING]
        cancelled = {run.id for run in found if run.state.type is StateType.CANCELLED}
        # A process that was sent the intent reports CANCELLED itself just before it exits: give it one interval.
        to_cancel += sorted(cancelled & self._seen_cancelled)
        self._seen_cancelled = cancelled
        for run_id in to_cancel:
            with self._contained.item(f"run {run_id}"):
                self._supervisor.cancel([run_id], announce=False)
