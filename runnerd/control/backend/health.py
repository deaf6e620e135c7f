"""Builds the health document from quick checks in memory, and starts the doctor's checks of the whole host."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from runnerd.core.place import Json
from runnerd.core.prefect import ApiCondition
from runnerd.journal.journal import Journal
from runnerd.prefect_api.client import PrefectApi
from runnerd.processes.link import SpawnerLink
from runnerd.system.watchdog import Pulse


class Health:
    """The checks of the daemon itself; `examine` runs those of the doctor."""

    def __init__(
        self,
        *,
        api: PrefectApi,
        link: SpawnerLink,
        journal: Journal,
        pulse: Pulse,
        examine: Callable[[], Coroutine[Any, Any, Json]],
    ) -> None:
        self._api = api
        self._link = link
        self._journal = journal
        self._pulse = pulse
        self.examine = examine

    def document(self) -> tuple[bool, Json]:
        """Return whether every check passes, and the health document."""
        api, stuck = self._api.health, self._pulse.stuck()
        journal = self._journal.problem
        checks = [
            _check("loops", not stuck, f"stuck: {', '.join(stuck)}" if stuck else "every loop makes progress"),
            _check("spawner", self._link.connected, self._link.problem or "connected"),
            _check("journal", journal is None, journal or "the journal can be written"),
            # As in Prefect's own health checks: a restart of this daemon would not end the maintenance.
            _check("api", api.condition in (ApiCondition.OK, ApiCondition.MAINTENANCE), api.detail),
        ]
        ok = all(check["ok"] for check in checks)
        return ok, {"ok": ok, "checks": checks}


def _check(name: str, ok: bool, detail: str) -> dict[str, Any]:
    return {"name": name, "ok": ok, "detail": detail}
