"""Lists what waits in work pools, paused ones too, by filters.

A worker's own request would hide what pauses and limits hold up; and it counts as a poll, after which the server calls
the queue and its deployments ready.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from runnerd.core.place import Json
from runnerd.core.prefect import DeploymentInfo, FlowRun, StateType, WorkQueue
from runnerd.prefect_api.answers import ApiRefusal, Page
from runnerd.prefect_api.paging import NO_VALUES, Pages
from runnerd.prefect_api.parse import parse_deployment, parse_offer
from runnerd.prefect_api.reading import PAGE, Reader, refused
from runnerd.prefect_api.transport import Transport
from runnerd.prefect_api.values import Unreadable

_FORBIDDEN = frozenset({422})  # an unknown key of a filter, among others
_OCCUPYING = (StateType.PENDING, StateType.RUNNING)  # as both majors count the slots of pools and queues


class WaitingRuns:
    """Makes the requests about runs that wait in a pool, or in one of its queues."""

    def __init__(self, *, transport: Transport, reader: Reader, pages: Pages) -> None:
        self._transport = transport
        self._reader = reader
        self._pages = pages

    async def first_runs(self, pool: str, queues: Sequence[WorkQueue], *, before: datetime, limit: int = PAGE) -> Page:
        """List the first runs of these queues that fall due before `before`, the earliest first.

        Runs that only their own process may go on with are left out, as by the server.
        """
        due = {"state": _types(StateType.SCHEDULED), "next_scheduled_start_time": {"before_": before.isoformat()}}
        body = {**_place(pool, queues, due), "sort": "NEXT_SCHEDULED_START_TIME_ASC"}
        names = {queue.id: queue.name for queue in queues}
        # A legacy queue of 2.x only selects runs, which are in another queue or in none.
        picked = queues[0].name if _is_legacy(queues) else None

        def parse(data: Json) -> FlowRun:
            run = parse_offer(data)
            return replace(run, pool=pool, queue=picked or names.get(str(data.get("work_queue_id"))))

        page = await self._pages.first("/flow_runs/filter", body, limit=limit, parse=parse, values=NO_VALUES)
        assert page is not None, "a 404 is no value here"
        return Page((run for run in page if not run.retries_in_process), full=page.full)

    async def occupied(self, pool: str, queues: Sequence[WorkQueue] = ()) -> int:
        """Count the runs that take up slots of the concurrency limit of these queues, or of the pool."""
        body = _place(pool, queues, {"state": _types(*_OCCUPYING)})
        reply = await self._transport.request("POST", "/flow_runs/count", body=body, sure=True)
        return self._reader.read("a number of flow runs", reply.data, _parse_count)

    async def paused_deployments(self, pools: Sequence[str]) -> list[DeploymentInfo] | ApiRefusal:
        """List the first paused deployments of these pools.

        ApiRefusal: this server has no such filter; those before 2.17 forbid what they do not know.
        """
        chosen = {"deployments": {"paused": {"eq_": True}}, "work_pools": {"name": {"any_": list(pools)}}}
        body = {**chosen, "limit": PAGE, "sort": "NAME_ASC"}
        reply = await self._transport.request("POST", "/deployments/filter", body=body, values=_FORBIDDEN, sure=True)
        if reply.status in _FORBIDDEN:
            return refused(reply)
        return self._reader.items("deployments", reply, parse_deployment)


def _is_legacy(queues: Sequence[WorkQueue]) -> bool:
    return len(queues) == 1 and queues[0].filter is not None


def _types(*types: StateType) -> Json:
    return {"type": {"any_": [one.value for one in types]}}


def _place(pool: str, queues: Sequence[WorkQueue], chosen: Mapping[str, Json]) -> dict[str, Json]:
    """Make the filter of runs that are `chosen` and in these queues."""
    if not _is_legacy(queues):
        there: dict[str, Json] = {"work_pools": {"name": {"any_": [pool]}}}
        if queues:
            there["work_pool_queues"] = {"id": {"any_": [queue.id for queue in queues]}}
        return {"flow_runs": dict(chosen), **there}
    selects = queues[0].filter or {}
    picks: dict[str, Json] = dict(chosen)
    if selects.get("tags"):
        picks["tags"] = {"all_": selects["tags"]}
    if selects.get("deployment_ids"):
        picks["deployment_id"] = {"any_": selects["deployment_ids"]}
    return {"flow_runs": picks}


def _parse_count(data: Json) -> int:
    if isinstance(data, bool) or not isinstance(data, int) or data < 0:
        raise Unreadable("it is not a number")
    return data
