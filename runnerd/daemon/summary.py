"""The one line of `systemctl status`, kept true."""

from __future__ import annotations

import asyncio
import contextlib

from runnerd.config.in_force import ConfigInForce
from runnerd.core.machine import RunRecord
from runnerd.core.prefect import ApiCondition
from runnerd.core.problems import Problems
from runnerd.core.record_feed import RecordFeed
from runnerd.core.wakes import Wakes
from runnerd.prefect_api.client import PrefectApi
from runnerd.runs.supervisor import Supervisor
from runnerd.system.systemd import Systemd

_STATUS_S = 5.0


class Summary:
    """Sends the line at once when `wakes.status` is set or a run has changed, and every few seconds."""

    def __init__(
        self,
        *,
        api: PrefectApi,
        config: ConfigInForce,
        problems: Problems,
        supervisor: Supervisor,
        feed: RecordFeed,
        wakes: Wakes,
        systemd: Systemd,
    ) -> None:
        self._api = api
        self._config = config
        self._problems = problems
        self._supervisor = supervisor
        self._wakes = wakes
        self._systemd = systemd
        feed.subscribe(self._note_run)

    def _note_run(self, _record: RunRecord) -> None:
        self._wakes.status.set()

    async def run(self) -> None:
        """Send the line for as long as systemd is there to read it."""
        while self._systemd.present:
            self._wakes.status.clear()
            self._systemd.status(self.line())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STATUS_S):
                    await self._wakes.status.wait()

    def line(self) -> str:
        """`3 running of 10, API ok`; ASCII is up to whoever sends it."""
        health, runs = self._api.health, len(self._supervisor.records())
        api = "API ok" if health.condition is ApiCondition.OK else f"API {health.condition}: {health.detail}"
        draining = "; draining" if self._wakes.draining.is_set() else ""
        problems = len(self._problems.all())
        these = "1 problem" if problems == 1 else f"{problems} problems"
        return f"{runs} running of {self._config.settings().limits.runs}, {api}{draining}" + (
            f"; {these}, see runnerctl status" if problems else ""
        )
