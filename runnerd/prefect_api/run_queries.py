"""Finds flow runs by what they have to do with others, for the words of `runnerctl status` and the doctor."""

from __future__ import annotations

from collections.abc import Sequence

from runnerd.core.place import Json
from runnerd.prefect_api.reading import Reader
from runnerd.prefect_api.values import Unreadable, is_uuid, needed_id


class RunQueries:
    """Makes bounded requests about flow runs."""

    def __init__(self, *, reader: Reader) -> None:
        self._reader = reader

    async def flow_runs_of(self, task_run_ids: Sequence[str]) -> dict[str, str]:
        """Return, by id of each of these task runs that exists, the id of the flow run that it belongs to."""

        def choose(ids: Sequence[str]) -> dict[str, Json]:
            return {"task_runs": {"id": {"any_": list(ids)}}}

        found = await self._reader.filtered("task runs", "/task_runs/filter", task_run_ids, choose, _parse_task_run)
        return {task_run: flow_run for task_run, flow_run in found if flow_run is not None}


def _parse_task_run(data: Json) -> tuple[str, str | None]:
    if not isinstance(data, dict):
        raise Unreadable("a task run is not an object")
    flow_run = data.get("flow_run_id")  # null for a task that runs without a flow
    return needed_id(data, "id"), flow_run.lower() if isinstance(flow_run, str) and is_uuid(flow_run) else None
