"""Tells Prefect which version of its source a run has: by labels, or by a line in the log of the run before 3.2."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

from runnerd.prefect_api.client import PrefectApi
from runnerd.prefect_api.dialect import RUN_LABELS_SINCE, is_before
from runnerd.prefect_api.reading import ABSENT
from runnerd.prefect_api.values import is_uuid

_LOGGER, _INFO = "runnerd", 20


async def note_version(
    api: PrefectApi, run_id: str, *, labels: Mapping[str, str], line: str, now: Callable[[], datetime]
) -> None:
    """Send the labels, or the line to a server that has no labels of runs. Raises ApiError."""
    if not is_uuid(run_id):
        return
    if not is_before(await api.server(), RUN_LABELS_SINCE):
        return await api.pools.label_run(run_id, labels)
    log = {"name": _LOGGER, "level": _INFO, "message": line, "timestamp": now().isoformat(), "flow_run_id": run_id}
    await api.transport.request("POST", "/logs/", body=[log], values=ABSENT)
