"""health.py: what the outcomes of requests make of the API's condition."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta

import httpx
import pytest

from runnerd.core.errors import ApiAway, ApiDenied, ApiRejected
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


async def hang(rig: Rig, *others: str, at_once: int = 1) -> None:
    """Make requests that get no answer, and those to `others` meanwhile, which get one."""
    asked = [asyncio.create_task(rig.fail(ApiAway, "POST", "/lost", body={})) for _ in range(at_once)]
    await asyncio.sleep(20)
    for path in others:
        await rig.ask("GET", path)
    await asyncio.gather(*asked)
    rig.clock.at += timedelta(minutes=1)


def losing(request: httpx.Request) -> httpx.Response:
    async def lose() -> httpx.Response:
        await asyncio.sleep(60)
        raise httpx.ReadTimeout("", request=request)

    return lose() if request.url.path.endswith("/lost") else httpx.Response(200, json={})  # type: ignore[return-value]


async def test_what_never_gets_an_answer_is_reported_the_second_time() -> None:
    """The API answers everything else, so that each request of this kind is older than the last answer."""
    rig = Rig(losing)
    await hang(rig, "/x")
    assert [health.condition.value for health in rig.told] == ["ok"], "a restart of the server may have lost one"
    for _ in range(5):
        await hang(rig, "/x", "/y")
    assert [health.condition.value for health in rig.told] == ["ok", "degraded"], "until the next one ends, it lasts"
    assert rig.detail == "POST /lost: no answer in time"


async def test_requests_that_are_lost_together_count_once() -> None:
    rig = Rig(losing)
    await hang(rig, "/x", at_once=5)
    assert [health.condition.value for health in rig.told] == ["ok"]
    await hang(rig, "/x", at_once=5)
    assert [health.condition.value for health in rig.told] == ["ok", "degraded"]


@pytest.mark.parametrize("status", [200, 404])
async def test_what_was_answered_between_may_be_lost_again(status: int) -> None:
    lost = True

    def answer(request: httpx.Request) -> httpx.Response:
        found = request.url.path.endswith("/lost") and not lost
        return httpx.Response(status, json={"detail": "no such run"}) if found else losing(request)

    rig = Rig(answer)
    for _ in range(3):
        lost = True
        await hang(rig, "/x")
        lost = False
        with suppress(ApiRejected):
            await rig.ask("POST", "/lost", body={})
    assert [health.condition.value for health in rig.told] == ["ok"]


async def ask(traffic: Traffic, seconds: float, *, answered: bool = False) -> None:
    """Make a request that takes so long, and fails unless it is answered."""
    with suppress(ApiAway), traffic.request():
        await asyncio.sleep(seconds)
        if not answered:
            raise ApiAway("no answer in time")
        traffic.note_answer()


async def test_how_long_the_api_has_been_silent() -> None:
    traffic = Traffic()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(ask(traffic, 10))
        await asyncio.sleep(5)
        tasks.create_task(ask(traffic, 2, answered=True))
        await asyncio.sleep(1)
        assert traffic.silent_s == 6
        await asyncio.sleep(3)
        assert traffic.silent_s == 2, "the first one still waits"
    assert traffic.silent_s == 0, "the API has answered, and nothing waits any more"
    await asyncio.sleep(60)
    await ask(traffic, 3)
    await asyncio.sleep(4)
    assert traffic.silent_s == 7, "its failure was no answer, and it is asked again"
    await ask(traffic, 1, answered=True)
    await asyncio.sleep(4)
    assert traffic.silent_s == 0, "nothing waits for an answer"


@pytest.mark.parametrize(("failed_first", "silent_s"), [(False, 1), (True, 68)])
async def test_a_cancelled_request_leaves_the_silence_as_it_was(failed_first: bool, silent_s: float) -> None:
    traffic = Traffic()
    if failed_first:
        await ask(traffic, 2)
    given_up = [asyncio.create_task(ask(traffic, 100)) for _ in range(2)]
    for one in given_up:
        await asyncio.sleep(2.5)
        one.cancel()
    await asyncio.sleep(60)
    asked = asyncio.create_task(ask(traffic, 100))
    await asyncio.sleep(1)
    assert traffic.silent_s == silent_s, "the time in which nothing was asked is no silence"
    asked.cancel()


async def test_a_failure_beside_a_cancelled_request_is_silence() -> None:
    traffic = Traffic()
    given_up = asyncio.create_task(ask(traffic, 100))
    await asyncio.sleep(0)
    await ask(traffic, 2)
    given_up.cancel()
    await asyncio.sleep(8)
    assert traffic.silent_s == 10


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
