"""Keeps the status line of `systemctl status` up to date."""

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

_SEND_EVERY_S = 5.0


class Summary:
    """Sends the status line when `wakes.status` is set or a run has changed, and every few seconds."""

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
        """Send the line for ever; return at once without systemd."""
        while self._systemd.present:
            self._wakes.status.clear()
            self._systemd.notify_status(self.line())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SEND_EVERY_S):
                    await self._wakes.status.wait()

    def line(self) -> str:
        """Make the line, such as `3 running of 10, API ok`; not always ASCII, which Systemd.notify_status sees to."""
        health, runs = self._api.health, len(self._supervisor.records())
        api = "API ok" if health.condition is ApiCondition.OK else f"API {health.words}"
        draining = "; draining" if self._wakes.draining.is_set() else ""
        problems = len(self._problems.all())
        count = "1 problem" if problems == 1 else f"{problems} problems"
        return f"{runs} running of {self._config.settings().limits.runs}, {api}{draining}" + (
            f"; {count}, see runnerctl status" if problems else ""
        )
