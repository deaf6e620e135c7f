"""values.py: any value of an answer becomes one that can be calculated with, stored and sent on, or a refusal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runnerd.prefect_api.parse import parse_offer, parse_state
from runnerd.prefect_api.values import (
    EARLIEST,
    LATEST,
    WAIT_MAX_S,
    WHOLE_MAX,
    Unreadable,
    is_uuid,
    read_due,
    read_http_date,
    read_retry_after_s,
    read_time,
    read_wait_s,
    read_whole,
)
from tests.kits.nouns import an_id

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
ENDS = [
    ("0001-01-01T00:00:00+14:00", EARLIEST),
    ("0001-01-01T00:00:00Z", EARLIEST),
    ("0001-01-01", EARLIEST),
    ("0001-12-31T23:59:59+12:00", EARLIEST),
    ("9999-12-31T23:59:59.999999-14:00", LATEST),
    ("9999-12-31T23:59:59Z", LATEST),
]


@pytest.mark.parametrize(("text", "moment"), ENDS)
def test_times_at_the_ends_of_time(text: str, moment: datetime) -> None:
    assert read_time(text) == read_due({"at": text}, "at") == moment


@pytest.mark.parametrize("text", ["soon", "", "10000-01-01T00:00:00Z", "2026-02-30", "1e9", "\ud800", "9" * 5000])
def test_what_is_no_time(text: str) -> None:
    assert read_time(text) is None
    with pytest.raises(Unreadable, match="at is no time: "):
        read_due({"at": text}, "at")


@given(st.text() | st.datetimes(timezones=st.timezones()).map(datetime.isoformat))
def test_a_time_can_be_calculated_with(text: str) -> None:
    moment = read_time(text)
    if moment is not None:
        assert EARLIEST <= moment <= LATEST and moment.tzinfo is UTC
        for zone in ("Pacific/Kiritimati", "Pacific/Niue"):
            assert (moment + timedelta(days=300)).astimezone(ZoneInfo(zone)) > moment - timedelta(days=300)


def test_a_run_to_be_cancelled_is_readable_whatever_its_time_says() -> None:
    for text, moment in [*ENDS, ("soon", None), (17, None)]:
        details = {"scheduled_time": text, "transition_id": "t"}
        state = parse_state({"type": "CANCELLING", "state_details": details})
        assert (state.scheduled_time, state.transition_id) == (moment, "t")


@pytest.mark.parametrize("key", ["next_scheduled_start_time", "expected_start_time"])
def test_a_run_is_not_offered_at_a_time_that_is_none(key: str) -> None:
    run = {"id": an_id("r"), "flow_id": an_id("f"), "state": {"type": "SCHEDULED"}}
    assert parse_offer({**run, key: "0001-01-01T00:00:00+14:00"}).id == an_id("r")
    with pytest.raises(Unreadable, match=f"{key} is no time: 'soon'"):
        parse_offer({**run, key: "soon"})


@pytest.mark.parametrize(
    ("header", "moment"),
    [
        ("Sun, 22 Nov 2026 12:00:00 GMT", NOON),
        ("Sun, 22 Nov 2026 14:00:00 +0200", NOON),
        ("Fri, 31 Dec 9999 23:59:59 -1400", LATEST),
        ("Sun, 22 Nov 99999999999999999999 12:00:00 GMT", None),
        ("Sun, 22 Nov " + "9" * 5000 + " 12:00:00 GMT", None),
        ("Sun, 22 Nov 2026 12:00:00 +99999999999", None),
        ("Sun, 22 Nov 2026 12:00:00", None),
        ("soon", None),
        (None, None),
    ],
)
def test_dates_of_headers(header: str | None, moment: datetime | None) -> None:
    assert read_http_date(header) == moment


@given(st.text())
def test_any_header_is_a_date_a_wait_or_none(text: str) -> None:
    read_http_date(text)
    wait_s = read_retry_after_s(text, now=NOON)
    assert wait_s is None or 0 <= wait_s <= WAIT_MAX_S


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("1" + "0" * 20, WAIT_MAX_S),
        ("Fri, 31 Dec 9999 23:59:59 -1400", WAIT_MAX_S),
        ("1e999", None),
        ("9" * 5000, None),
    ],
)
def test_a_wait_is_bounded(header: str, seconds: float | None) -> None:
    assert read_retry_after_s(header, now=NOON) == seconds


@pytest.mark.parametrize(
    ("value", "whole", "wait_s"),
    [
        (7, 7, 7.0),
        (0, 0, 0.0),
        (-5, 0, 0.0),
        (10**20, WHOLE_MAX, WAIT_MAX_S),
        (-(10**400), 0, 0.0),
        (10**400, WHOLE_MAX, WAIT_MAX_S),
        (2.5, None, 2.5),
        (float("inf"), None, None),
        (float("nan"), None, None),
        (True, None, None),
        ("7", None, None),
        (None, None, None),
    ],
)
def test_numbers(value: Any, whole: int | None, wait_s: float | None) -> None:
    assert (read_whole(value), read_wait_s(value)) == (whole, wait_s)


@settings(deadline=None)
@given(st.text())
def test_only_ids_are_ids(text: str) -> None:
    assert not is_uuid(text)
    assert not is_uuid(f"{{{an_id('r')}}}") and not is_uuid("urn:uuid:" + an_id("r")) and not is_uuid("0" * 32)
    assert is_uuid(an_id("r")) and is_uuid(an_id("r").upper())
