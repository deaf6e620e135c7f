"""Makes the calls to Prefect's API about the logs of flow runs.

A batch of lines has no id by which the server would recognise a repeat; a line is recognised by its time, of which each
line of a run has its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from runnerd.core.place import Json
from runnerd.prefect_api.transport import Transport

LOGGER = "runnerd.command"
INFO, WARNING = 20, 30
STEP = timedelta(microseconds=1)  # between two lines


@dataclass(frozen=True, slots=True)
class LogLine:
    text: str
    level: int = INFO


class LogsApi:
    """Sends lines, and asks for them. Every call may raise ApiAway, ApiDenied or ApiRejected."""

    def __init__(self, *, transport: Transport) -> None:
        self._transport = transport

    async def send(self, run_id: str, lines: Sequence[LogLine], *, first: datetime, name: str = LOGGER) -> None:
        """Add lines to the log of a run; the first one is of `first`, and each other one STEP later."""
        body: list[Json] = [
            {
                "name": name,
                "level": line.level,
                "message": line.text,
                "timestamp": (first + index * STEP).isoformat(),
                "flow_run_id": run_id,
            }
            for index, line in enumerate(lines)
        ]
        await self._transport.request("POST", "/logs/", body=body)

    async def has(self, run_id: str, at: datetime) -> bool:
        """Whether the log of the run has a line of that very time."""
        time = at.isoformat()
        chosen = {"flow_run_id": {"any_": [run_id]}, "timestamp": {"after_": time, "before_": time}}
        body = {"logs": chosen, "limit": 1}
        reply = await self._transport.request("POST", "/logs/filter", body=body, sure=True)
        return isinstance(reply.data, list) and bool(reply.data)
