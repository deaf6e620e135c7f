"""What the API wants ended: our own runs that are to be cancelled are asked for.

Invariants: nothing is asked while no run is under way; nothing here ends because the API is away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from runnerd.config.in_force import ConfigInForce
from runnerd.core.errors import ApiAway, ApiDenied, ApiRejected
from runnerd.core.prefect import FlowRun, StateType
from runnerd.runs.supervisor import Supervisor
from runnerd.system.ambient import Ambient

_INTERVAL_S = 5.0
_REQUEST_BOUND_S = 180.0  # a request, its connection and its time limit: for the watchdog


class CancellingApi(Protocol):
    """What is asked of Prefect."""

    async def runs_of(self, run_ids: Sequence[str], *, states: Sequence[StateType]) -> list[FlowRun]: ...


class Cancellations:
    """`run` for ever, or `poll_once`."""

    def __init__(
        self,
        *,
        api: CancellingApi,
        supervisor: Supervisor,
        config: ConfigInForce,
        ambient: Ambient,
    ) -> None:
        self._api = api
        self._supervisor = supervisor
        self._settings = config.settings
        self._pulse = ambient.pulse
        self._backoff = ambient.backoff
        self._seen_cancelled: set[str] = set()

    async def run(self) -> None:
        """Ask for ever which of our own runs are to be cancelled."""
        backoff = self._backoff()
        while True:
            interval = min(_INTERVAL_S, self._settings().api.poll_interval_s)
            self._pulse.beat("cancelling", within_s=interval + _REQUEST_BOUND_S)
            try:
                await self.poll_once()
                backoff.reset()
            except (ApiAway, ApiDenied, ApiRejected) as error:
                self._pulse.beat("cancelling", within_s=3600.0)
                await asyncio.sleep(backoff.next_s(error))
            await asyncio.sleep(interval)

    async def poll_once(self) -> None:
        """One look. CANCELLING is a wish; CANCELLED while the process lives counts only when it stays so."""
        ours = [record.id for record in self._supervisor.records()]
        if not ours:
            self._seen_cancelled.clear()
            return
        found = await self._api.runs_of(ours, states=(StateType.CANCELLING, StateType.CANCELLED))
        wished = [run.id for run in found if run.state.type is StateType.CANCELLING]
        cancelled = {run.id for run in found if run.state.type is StateType.CANCELLED}
        # A child that was told the intent reports CANCELLED itself just before it exits: give it one interval.
        wished += sorted(cancelled & self._seen_cancelled)
        self._seen_cancelled = cancelled
        self._supervisor.cancel(wished, announce=False)
