"""Finds flow runs by what they have to do with others, for the words of `runnerctl status` and the doctor."""

from __future__ import annotations

from collections.abc import Sequence

from runnerd.core.place import Json
from runnerd.core.prefect import FlowRun, StateType
from runnerd.prefect_api.parse import parse_flow_run, parse_offer
from runnerd.prefect_api.reading import PAGE, Reader
from runnerd.prefect_api.transport import Transport
from runnerd.prefect_api.values import Unreadable, is_uuid, needed_id


class RunQueries:
    """Makes bounded requests about flow runs."""

    def __init__(self, *, transport: Transport, reader: Reader) -> None:
        self._transport = transport
        self._reader = reader

    async def flow_runs_of(self, task_run_ids: Sequence[str]) -> dict[str, str]:
        """Return, by id of each of these task runs that exists, the id of the flow run that it belongs to."""

        def choose(ids: Sequence[str]) -> dict[str, Json]:
            return {"task_runs": {"id": {"any_": list(ids)}}}

        found = await self._reader.filtered("task runs", "/task_runs/filter", task_run_ids, choose, _parse_task_run)
        return {task_run: flow_run for task_run, flow_run in found if flow_run is not None}

    async def next_runs(self, deployment_id: str, *, limit: int) -> list[FlowRun]:
        """List the scheduled runs of this deployment that are due first. A filter, which counts as nobody's poll."""
        chosen = {"deployment_id": {"any_": [deployment_id]}, "state": {"type": {"any_": [StateType.SCHEDULED.value]}}}
        body: Json = {"flow_runs": chosen, "sort": "NEXT_SCHEDULED_START_TIME_ASC", "limit": limit}
        reply = await self._transport.request("POST", "/flow_runs/filter", body=body, sure=True)
        return self._reader.items("flow runs", reply, parse_offer)

    async def bound_runs(self, *, deployments: Sequence[str], pools: Sequence[str]) -> list[FlowRun]:
        """List the runs of these deployments and work pools that may be bound to their process, at most 200 of each.

        Both majors let a process pause, and retry, inside of it: other names of states are of other waits.
        """
        kinds = {"type": {"any_": [StateType.PAUSED.value, StateType.SCHEDULED.value]}}
        state = {**kinds, "name": {"any_": ["Paused", "AwaitingRetry"]}}

        def choose(ids: Sequence[str]) -> dict[str, Json]:
            return {"flow_runs": {"deployment_id": {"any_": list(ids)}, "state": state}}

        found = await self._reader.filtered("flow runs", "/flow_runs/filter", deployments, choose, parse_flow_run)
        if pools:
            body = {"flow_runs": {"state": state}, "work_pools": {"name": {"any_": list(pools)}}, "limit": PAGE}
            reply = await self._transport.request("POST", "/flow_runs/filter", body=body, sure=True)
            found += self._reader.items("flow runs", reply, parse_flow_run)
        return found


def _parse_task_run(data: Json) -> tuple[str, str | None]:
    if not isinstance(data, dict):
        raise Unreadable("a task run is not an object")
    flow_run = data.get("flow_run_id")  # null for a task that runs without a flow
    return needed_id(data, "id"), flow_run.lower() if isinstance(flow_run, str) and is_uuid(flow_run) else None
