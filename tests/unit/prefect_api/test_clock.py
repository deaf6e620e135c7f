"""How far apart the clocks are, from the Date of an answer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import httpx
import pytest

from runnerd.prefect_api.client import PrefectApi
from runnerd.prefect_api.clock import measured_skew
from runnerd.prefect_api.credentials import Credentials

NOON = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
RUN = "6d1f3c0e-0d1b-4b41-9f3e-2b8a3f8e4c11"
DATE = "Sun, 22 Nov 2026 12:00:00 GMT"


@pytest.mark.parametrize(
    ("sent_s", "received_s", "ahead_s", "at_least_s"),
    [
        (0.5, 0.5, 0.0, 0.0),
        (0.0, 1.0, 0.0, 0.0),
        (10.5, 10.5, 10.0, 9.5),
        (-10.0, -9.0, -10.0, 9.0),
        (0.5, 20.5, 10.0, 0.0),  # it may have been made at any time between
    ],
)
def test_a_skew(sent_s: float, received_s: float, ahead_s: float, at_least_s: float) -> None:
    skew = measured_skew(DATE, sent=NOON + timedelta(seconds=sent_s), received=NOON + timedelta(seconds=received_s))
    assert skew is not None
    assert skew.seconds == pytest.approx(ahead_s)
    assert skew.at_least_s == pytest.approx(at_least_s)


@pytest.mark.parametrize("date", [None, "", "now", "Sun, 22 Nov 2026 12:00:00 -0000", "Sun, 99 Nov 2026 12:00:00 GMT"])
def test_a_date_that_says_nothing(date: str | None) -> None:
    assert measured_skew(date, sent=NOON, received=NOON) is None


def test_a_clock_of_our_own_that_was_set_meanwhile() -> None:
    assert measured_skew(DATE, sent=NOON, received=NOON - timedelta(seconds=1)) is None


async def test_the_client_keeps_what_the_latest_answer_of_its_own_host_told() -> None:
    answers = {
        "/api/admin/version": httpx.Response(307, headers={"Location": "http://elsewhere.test/api/x"}),
        "/api/x": httpx.Response(200, json="3.8.8", headers={"Date": "Sun, 22 Nov 2020 12:00:00 GMT"}),
    }
    here = httpx.MockTransport(lambda request: answers[request.url.path])
    client = httpx.AsyncClient(transport=here)
    api = PrefectApi(
        url="http://p.test/api", credentials=Credentials, headers={}, timeout_s=60, now=lambda: NOON, client=client
    )
    assert api.skew is None
    await api.server()
    assert api.skew is None  # another host has another clock
    answers["/api/flow_run_states/"] = httpx.Response(200, json=[], headers={"Date": DATE})
    await api.history(RUN)
    first = api.skew
    assert first is not None
    assert first.seconds == pytest.approx(-0.5)
    answers["/api/flow_run_states/"] = httpx.Response(200, json=[])
    await api.history(RUN)
    assert api.skew is first
    await api.close()
