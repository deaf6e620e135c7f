"""The contract about logs of flow runs: lines are taken, and found by their time, to the microsecond."""

from __future__ import annotations

from datetime import UTC, datetime

from runnerd.prefect_api.logs import STEP, LogLine, LogsApi
from tests.kits.contract import NOBODY, Server

FIRST = datetime(2026, 3, 4, 5, 6, 7, 123456, tzinfo=UTC)


async def test_a_line_is_found_by_its_very_time(server: Server) -> None:
    async with server.visit() as visit:
        logs = LogsApi(transport=visit.api.transport)
        run = await visit.new_run((await visit.deploy()).id)
        lines = [LogLine("first"), LogLine("\\x00 \u202e \U0001f600"), LogLine("")]
        await visit.insist(lambda: logs.send(run.id, lines, first=FIRST))
        at = {
            step: await visit.insist(lambda step=step: logs.has(run.id, FIRST + step * STEP)) for step in range(-1, 4)
        }
        assert at == {-1: False, 0: True, 1: True, 2: True, 3: False}
        assert not await visit.insist(lambda: logs.has(NOBODY, FIRST))
