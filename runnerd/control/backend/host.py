"""The running daemon behind the control API.

Invariant: reading never waits for Prefect's API, except for work pools, whose state only Prefect has, for a run that
this host does not have, for the plan of a start, and the doctor.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Protocol

from runnerd.control.backend.deployments import DeploymentsBackend
from runnerd.control.backend.health import Health
from runnerd.control.backend.launches import LaunchesBackend
from runnerd.control.backend.metrics import Metrics
from runnerd.control.backend.pools import PoolsBackend
from runnerd.control.backend.runs import RunsBackend
from runnerd.control.backend.status import Status
from runnerd.control.contract import Peer, Refused
from runnerd.core.place import Json
from runnerd.runs.drain import Drain


class Reload(Protocol):
    """Reads the configuration again; `inspect` as in the control API."""

    def __call__(self, *, inspect: bool) -> Coroutine[Any, Any, Json]: ...


class DaemonHost:
    """Implements runnerd.control.contract.Host."""

    def __init__(
        self,
        *,
        status: Status,
        health: Health,
        metrics: Metrics,
        runs: RunsBackend,
        deployments: DeploymentsBackend,
        pools: PoolsBackend,
        launches: LaunchesBackend,
        drain: Drain,
        reload: Reload,
    ) -> None:
        self._status = status
        self._health = health
        self._metrics = metrics
        self.runs = runs
        self.deployments = deployments
        self.pools = pools
        self.launches = launches
        self._drain = drain
        self._reload = reload

    def status(self) -> Json:
        return self._status.document()

    def health(self) -> tuple[bool, Json]:
        return self._health.document()

    async def doctor(self) -> Json:
        return await self._health.examine()

    def config(self) -> Json:
        return self._status.configuration()

    async def metrics(self) -> str:
        return await self._metrics.text()

    async def reload(self, *, inspect: bool, peer: Peer) -> Json:
        return await self._reload(inspect=inspect)

    def drain(self, *, timeout_s: float | None, reason: str | None, peer: Peer) -> Json:
        self._drain.begin(reason=reason, timeout_s=timeout_s)
        return self.status()

    def undrain(self, *, peer: Peer) -> Json | Refused:
        refusal = self._drain.end()
        return self.status() if refusal is None else Refused(status=409, detail=f"cannot undrain: {refusal}")
