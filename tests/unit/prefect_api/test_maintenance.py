"""transport.py and health.py: an API in maintenance, which Prefect 3.9 says by a header of its 503."""

from __future__ import annotations

from datetime import timedelta

import httpx
import pytest

from runnerd.core.errors import ApiAway
from runnerd.core.prefect import ApiCondition
from tests.kits.transport import RUN, Rig, in_turn, says

MAINTENANCE = says(503, {"exception_message": "Back at 5"}, Prefect_Maintenance="true")


async def test_maintenance_is_a_condition_of_its_own() -> None:
    rig = Rig(in_turn(says(200), MAINTENANCE, MAINTENANCE, says(503), MAINTENANCE, says(200)))
    await rig.ask()
    for _ in range(4):
        await rig.fail(ApiAway)
    await rig.ask()
    assert [health.condition.value for health in rig.told] == ["ok", "maintenance", "degraded", "maintenance", "ok"]
    assert rig.told[1].detail == "in maintenance: Back at 5"


async def test_the_error_says_that_the_server_refuses_everything() -> None:
    error = await Rig(MAINTENANCE).fail(ApiAway)
    assert (error.maintenance, error.answered, error.retry_after_s) == (True, False, None)
    assert str(error) == "Prefect at http://prefect.test:4200/api is in maintenance"
    later = says(503, None, Prefect_Maintenance="true", Retry_After="90")
    assert (await Rig(later).fail(ApiAway)).retry_after_s == 90.0


@pytest.mark.parametrize(
    ("status", "header"), [(503, "false"), (503, ""), (500, "true"), (429, "true"), (502, "true"), (404, "true")]
)
async def test_only_a_503_with_that_header_is_maintenance(status: int, header: str) -> None:
    rig = Rig(says(status, {"detail": "Not Found"}, Prefect_Maintenance=header))
    assert not (await rig.fail(ApiAway)).maintenance
    assert rig.condition is ApiCondition.DEGRADED


async def test_a_change_in_maintenance_with_a_token_of_csrf() -> None:
    """The request for a token is answered alike; the change that follows says what it is."""
    rig = Rig(MAINTENANCE)
    assert (await rig.fail(ApiAway, "POST", f"/flow_runs/{RUN}/set_state", body={})).maintenance


async def test_maintenance_of_one_part_of_the_api_lasts_until_that_part_answers() -> None:
    maintained = True

    def answer(request: httpx.Request) -> httpx.Response:
        return MAINTENANCE(request) if request.method == "POST" and maintained else httpx.Response(200, json={})

    rig = Rig(answer)
    for _ in range(3):
        await rig.ask("GET", "/poll")
        await rig.fail(ApiAway, "POST", "/x", body={})
        rig.clock.at += timedelta(seconds=10)
    await rig.ask("GET", "/poll")
    assert [health.condition.value for health in rig.told] == ["ok", "maintenance"]
    maintained = False
    await rig.ask("POST", "/x", body={})
    assert rig.condition is ApiCondition.OK
