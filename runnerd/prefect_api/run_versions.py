"""Tells Prefect which version of its source a run has: by labels, or by a line in the log of the run before 3.2."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

from runnerd.prefect_api.client import PrefectApi
from runnerd.prefect_api.dialect import RUN_LABELS_SINCE, is_before
from runnerd.prefect_api.logs import LogLine, LogsApi
from runnerd.prefect_api.values import is_uuid

_LOGGER = "runnerd"


async def note_version(
    api: PrefectApi, run_id: str, *, labels: Mapping[str, str], line: str, now: Callable[[], datetime]
) -> None:
    """Send the labels, or the line to a server that has no labels of runs. Raises ApiError."""
    if not is_uuid(run_id):
        return
    if not is_before(await api.server(), RUN_LABELS_SINCE):
        return await api.pools.label_run(run_id, labels)
    await LogsApi(transport=api.transport).send(run_id, [LogLine(line)], first=now(), name=_LOGGER)
