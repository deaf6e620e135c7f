"""health.py: what the outcomes of requests make of the API's condition."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta

import httpx
import pytest

from runnerd.core.errors import ApiAway, ApiDenied
from runnerd.core.prefect import ApiCondition
from runnerd.prefect_api.client import PrefectApi
from runnerd.prefect_api.health import STALE
from runnerd.prefect_api.traffic import Traffic
from tests.kits.transport import NOW, RUN, Answer, Rig, in_turn, says
from tests.unit.prefect_api.test_client import visit


async def test_health_moves_since_only_with_the_condition() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("", request=request)

    rig = Rig(in_turn(says(200), says(200), says(503), says(500), refuse, refuse, says(200)))
    assert (rig.condition, rig.detail) == (ApiCondition.UNREACHABLE, "no answer yet")
    for kind in (None, None, ApiAway, ApiAway, ApiAway, ApiAway, None):
        rig.clock.at += timedelta(minutes=1)
        if kind is None:
            await rig.ask()
        else:
            await rig.fail(kind)
    minutes = [((health.since - NOW) // timedelta(minutes=1), health.condition.value) for health in rig.told]
    assert minutes == [(1, "ok"), (3, "degraded"), (3, "degraded"), (5, "unreachable"), (7, "ok")]
    assert [health.detail for health in rig.told][1:4] == [
        "HTTP 503 from GET /x",
        "HTTP 500 from GET /x",
        "no connection",
    ]


async def test_what_fails_is_not_made_good_by_something_else() -> None:
    """An API that can be read and not written to is not well, however often it is polled."""
    other = "7a1f3c0e-0d1b-4b41-9f3e-2b8a3f8e4c22"

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(503 if request.method == "POST" and broken else 200, json={})

    broken = True
    rig = Rig(answer)
    for _ in range(10):
        await rig.ask("GET", "/poll")
        await rig.fail(ApiAway, "POST", f"/flow_runs/{RUN}/set_state", body={})
        rig.clock.at += timedelta(seconds=30)
    assert [health.condition.value for health in rig.told] == ["ok", "degraded"]
    assert rig.detail == "HTTP 503 from POST /flow_runs/{id}/set_state"
    broken = False
    await rig.ask("POST", f"/flow_runs/{other}/set_state", body={})
    assert rig.condition is ApiCondition.OK


async def test_what_failed_and_is_not_asked_for_any_more_is_forgotten() -> None:
    rig = Rig(lambda request: httpx.Response(200 if request.method == "GET" else 503, json={}))
    await rig.fail(ApiAway, "POST", "/x", body={})
    await rig.ask("GET", "/poll")
    assert rig.condition is ApiCondition.DEGRADED
    rig.clock.at += STALE
    await rig.ask("GET", "/poll")
    assert rig.condition is ApiCondition.OK


async def test_a_request_that_cannot_be_wrong_is_not_rejected_but_in_vain() -> None:
    for status in (400, 404, 409, 413, 418, 422):
        rig = Rig(says(status, {"detail": "no such thing"}))
        error = await rig.fail(ApiAway, "POST", "/deployments/get_scheduled_flow_runs", body={}, sure=True)
        assert f"HTTP {status} from POST /deployments/get_scheduled_flow_runs: no such thing" in str(error)
        assert rig.condition is ApiCondition.DEGRADED


async def test_the_epoch_grows_with_each_trouble() -> None:
    rig = Rig(in_turn(says(200), says(503), says(503), says(200), says(401), says(200)))
    epochs = []
    for kind in (None, ApiAway, ApiAway, None, ApiDenied, None):
        await rig.ask() if kind is None else await rig.fail(kind)
        epochs.append(rig.transport.epoch)
    assert epochs == [0, 1, 1, 1, 2, 2]


async def test_a_failure_of_a_moment_does_not_move_since() -> None:
    rig = Rig(in_turn(says(200), says(503), says(200)))
    await rig.ask()
    since = rig.told[-1].since
    rig.clock.at += timedelta(minutes=5)
    await rig.fail(ApiAway)
    rig.clock.at += timedelta(seconds=2)
    await rig.ask()
    assert (rig.condition, rig.told[-1].since) == (ApiCondition.OK, since)


@pytest.mark.parametrize("later", [says(200), says(503)])
async def test_a_request_that_was_sent_before_the_last_answer_does_not_count(later: Answer) -> None:
    """The server was restarted: the request before it ends in its time limit, after the next ones were answered."""
    stuck, sent = asyncio.Event(), asyncio.Event()

    async def lost(request: httpx.Request) -> httpx.Response:
        sent.set()
        await stuck.wait()
        raise httpx.ReadTimeout("", request=request)

    rig = Rig(lambda request: lost(request) if request.url.path.endswith("/lost") else later(request))  # type: ignore[arg-type,return-value]
    old = asyncio.create_task(rig.fail(ApiAway, "GET", "/lost"))
    await sent.wait()
    with suppress(ApiAway):
        await rig.ask()
    condition, noted = rig.condition, len(rig.told)
    rig.clock.at -= timedelta(hours=1)  # the wall clock is set back meanwhile, which makes nothing older
    stuck.set()
    await old
    assert (rig.condition, len(rig.told)) == (condition, noted)
    await rig.fail(ApiAway, "GET", "/lost")
    assert rig.condition is ApiCondition.UNREACHABLE, "this one was sent after the last answer"


async def test_how_long_the_api_has_been_silent() -> None:
    loop, traffic = asyncio.get_running_loop(), Traffic()
    with traffic.request():
        await asyncio.sleep(5)
        began = loop.time() - 5
        with traffic.request():
            await asyncio.sleep(2)
            assert traffic.silent_s == loop.time() - began
            traffic.note_answer()
        await asyncio.sleep(3)
        assert traffic.silent_s == 3, "the first one still waits"
    await asyncio.sleep(4)
    assert traffic.silent_s == 7, "its failure was no answer"
    with traffic.request():
        traffic.note_answer()
    await asyncio.sleep(4)
    assert traffic.silent_s == 0, "nothing waits for an answer"


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("http://prefect.test/api", "/api/admin/version"),
        ("https://api.prefect.cloud/api/accounts/a/workspaces/w", "/api/accounts/a/workspaces/w/health"),
    ],
)
async def test_a_check_makes_a_request_that_every_key_may_make(url: str, path: str) -> None:
    asked = []

    async def check(api: PrefectApi) -> ApiCondition:
        await api.check()
        return api.health.condition

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(f"{request.method} {request.url.path}")
        return httpx.Response(200 if request.method == "GET" else 403, json=True)

    assert await visit(check, answer, url) is ApiCondition.OK
    assert asked == [f"GET {path}"]
