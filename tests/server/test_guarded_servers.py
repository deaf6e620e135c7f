"""Servers that guard themselves: CSRF tokens on both majors, and basic auth, which only 3.x knows."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest

from runnerd.core.errors import ApiAway, ApiDenied
from runnerd.core.prefect import ApiCondition
from runnerd.prefect_api.client import PrefectApi
from runnerd.prefect_api.credentials import Credentials
from tests.kits.prefect_servers import running_server

pytestmark = pytest.mark.server


@pytest.mark.parametrize("major", [2, 3])
def test_csrf_and_basic_auth(major: int, tmp_path: Path) -> None:
    given = [Credentials(auth_string="runner:wrong")]
    auth = {"PREFECT_SERVER_API_AUTH_STRING": "runner:secret"} if major == 3 else {}

    async def visit(url: str) -> None:
        api = PrefectApi(url=url, credentials=lambda: given[0], headers={}, timeout_s=60, now=lambda: datetime.now(UTC))
        if auth:
            with pytest.raises(ApiDenied, match="401: the auth string is not accepted"):
                await insist(api)
            assert api.health.condition is ApiCondition.DEGRADED
            given[0] = Credentials(auth_string="runner:secret")
        flow_id = await insist(api)
        assert await api.read_flow(flow_id) == "guarded"
        assert api.health.condition is ApiCondition.OK
        await api.close()

    with running_server(major, tmp_path, PREFECT_SERVER_CSRF_PROTECTION_ENABLED="true", **auth) as server:
        asyncio.run(visit(server.url))


async def insist(api: PrefectApi) -> str:
    for _ in range(100):
        try:
            return await api.ensure_flow("guarded")
        except ApiAway:  # SQLite is busy
            await asyncio.sleep(0.1)
    return await api.ensure_flow("guarded")
