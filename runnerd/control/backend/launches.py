"""Answers the control API's requests about starts of runs: the plan of one, and a retry."""

from __future__ import annotations

from runnerd.control.backend.api_calls import ApiCaller
from runnerd.control.backend.plans import Plans
from runnerd.control.backend.retries import Retries
from runnerd.control.contract import Peer, Refused
from runnerd.core.place import Json


class LaunchesBackend:
    """Implements runnerd.control.contract.HostLaunches."""

    def __init__(self, *, call_api: ApiCaller, retries: Retries, plans: Plans) -> None:
        self._call_api = call_api
        self._retries = retries
        self._plans = plans

    async def retry(self, run_id: str, *, peer: Peer) -> Json | Refused:
        return await self._retries.retry(run_id)

    async def plan_run(self, run_id: str) -> Json | Refused:
        found = await self._call_api(lambda: self._plans.of_run(run_id), reads=True)
        return found or Refused(status=404, detail=f"there is no flow run {run_id} in Prefect")

    async def plan_deployment(self, ref: str) -> Json | Refused:
        found = await self._call_api(lambda: self._plans.of_deployment(ref), reads=True)
        return found or Refused(
            status=404, detail=f"there is no deployment {ref!r}, on this host or in Prefect; see runnerctl deployments"
        )
