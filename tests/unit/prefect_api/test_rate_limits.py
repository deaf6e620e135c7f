"""rate_limits.py and traffic.py: what a 429 holds up and what not, and the requests of the last minute."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from runnerd.core.errors import ApiAway
from runnerd.prefect_api.rate_limits import RateLimits
from tests.kits.transport import RUN, Answer, Rig, says

CLOUD = "https://api.prefect.cloud/api/accounts/a/workspaces/b"
POLL = "/deployments/get_scheduled_flow_runs"
OTHER_RUN = RUN.replace("6d1f", "7d1f")
REPORT = f"/flow_runs/{RUN}/set_state"


def refusing(*paths: str, after: str = "60") -> Answer:
    """A server that refuses requests for these paths."""

    def answer(request: httpx.Request) -> httpx.Response:
        refused = any(request.url.path.endswith(path) for path in paths)
        return httpx.Response(429, headers={"Retry-After": after}) if refused else httpx.Response(200, json=[])

    return answer


def sent(rig: Rig, path: str) -> int:
    return sum(request.url.path.endswith(path) for request in rig.seen)


async def test_what_is_refused_is_not_sent_again_before_its_time() -> None:
    rig = Rig(refusing(POLL))
    for _ in range(10):
        error = await rig.fail(ApiAway, "POST", POLL)
        assert error.retry_after_s is not None and error.retry_after_s <= 60
        await asyncio.sleep(5)
    assert sent(rig, POLL) == 1
    assert not error.may_be_own, "the server has not answered it, and it is no reason to drop anything"
    await asyncio.sleep(10.1)
    await rig.fail(ApiAway, "POST", POLL)
    assert sent(rig, POLL) == 2


@pytest.mark.parametrize("waits", [(60.0, 5.0), (5.0, 60.0)])
async def test_of_two_refusals_the_longer_holds(waits: tuple[float, float]) -> None:
    """Of requests that were under way together: a second one is not sent later."""
    limits = RateLimits(shared=False, clock=asyncio.get_running_loop().time)
    for wait_s in waits:
        limits.note(f"POST {POLL}", wait_s=wait_s)
    assert limits.wait_s(f"POST {POLL}") == pytest.approx(60.0)
    await asyncio.sleep(61)
    limits.note(f"POST {POLL}", wait_s=5.0)
    assert limits.wait_s(f"POST {POLL}") == pytest.approx(5.0), "a time that is over does not count"


async def test_a_report_does_not_wait_because_a_poll_was_refused() -> None:
    rig = Rig(refusing(POLL))
    await rig.fail(ApiAway, "POST", POLL)
    assert (await rig.ask("POST", REPORT, body={})).status == 200
    assert (await rig.ask("GET", f"/flow_runs/{RUN}")).status == 200


async def test_a_refused_report_holds_up_those_of_other_runs_and_no_poll() -> None:
    rig = Rig(refusing("/set_state"))
    await rig.fail(ApiAway, "POST", REPORT)
    await rig.fail(ApiAway, "POST", REPORT.replace(RUN, OTHER_RUN))
    assert sent(rig, "/set_state") == 1, "it is one kind of request"
    assert (await rig.ask("POST", POLL)).status == 200


async def test_on_prefect_cloud_one_limit_is_for_all_but_events() -> None:
    rig = Rig(refusing(POLL), url=CLOUD)
    await rig.fail(ApiAway, "POST", POLL)
    await rig.fail(ApiAway, "POST", REPORT)
    assert sent(rig, "/set_state") == 0
    assert (await rig.ask("POST", "/events", body=[])).status == 200
    await asyncio.sleep(61)
    assert (await rig.ask("POST", REPORT)).status == 200


async def test_on_prefect_cloud_refused_events_hold_up_nothing_else() -> None:
    rig = Rig(refusing("/events"), url=CLOUD)
    await rig.fail(ApiAway, "POST", "/events")
    await rig.fail(ApiAway, "POST", "/events")
    assert sent(rig, "/events") == 1
    assert (await rig.ask("POST", REPORT)).status == 200


async def test_refused_polls_of_all_kinds_hold_up_no_report() -> None:
    refused = (POLL, "/work_pools/a/get_scheduled_flow_runs", "/work_pools/b/get_scheduled_flow_runs")
    rig = Rig(refusing(*refused))
    for path in refused:
        await rig.fail(ApiAway, "POST", path)
        await rig.fail(ApiAway, "POST", path)
        assert sent(rig, path) >= 1
    assert len([one for one in rig.seen if one.url.path.endswith("get_scheduled_flow_runs")]) == 3
    assert (await rig.ask("POST", REPORT)).status == 200


@pytest.mark.parametrize("headers", [{}, {"Retry_After": "soon"}, {"Retry_After": "-5"}])
async def test_a_429_without_a_time_holds_up_nothing(headers: dict[str, str]) -> None:
    rig = Rig(says(429, **headers))
    await rig.fail(ApiAway)
    await rig.fail(ApiAway)
    assert sent(rig, "/x") == 2


async def test_a_503_with_a_time_is_left_to_the_caller() -> None:
    rig = Rig(says(503, Retry_After="60"))
    await rig.fail(ApiAway)
    await rig.fail(ApiAway)
    assert sent(rig, "/x") == 2


async def test_the_requests_of_the_last_minute() -> None:
    rig = Rig(says(200))
    traffic = rig.transport.traffic
    assert traffic.per_minute == 0
    for number in range(120):
        await rig.ask()
        await asyncio.sleep(1)
        assert traffic.per_minute == min(number + 1, 60) or number >= 59
    assert traffic.per_minute in (59, 60)
    await asyncio.sleep(30)
    assert traffic.per_minute in (29, 30)
    await asyncio.sleep(100)
    assert traffic.per_minute == 0
    for _ in range(1000):
        traffic.note_sent()
    assert traffic.per_minute == 1000
    await asyncio.sleep(61)
    assert traffic.per_minute == 0


async def test_what_is_not_sent_is_not_counted() -> None:
    rig = Rig(refusing(POLL))
    for _ in range(10):
        await rig.fail(ApiAway, "POST", POLL)
    assert rig.transport.traffic.per_minute == len(rig.seen)
