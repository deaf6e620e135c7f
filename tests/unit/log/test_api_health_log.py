"""api_health_log.py: which changes of the API's condition are logged, and when."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from runnerd.core.prefect import ApiCondition, ApiHealth
from runnerd.log.api_health_log import ApiHealthLog
from runnerd.log.log import make_log


class News:
    """ApiHealthLog, its log, and a clock that is moved by hand."""

    def __init__(self) -> None:
        self.stream = io.StringIO()
        self.at = 0.0
        self.since = 0.0
        self.condition: ApiCondition | None = None
        self.waiting: list[tuple[float, Callable[[], None]]] = []
        log = make_log(log_format="json", journald=False, stream=self.stream)
        self.health_log = ApiHealthLog(
            url="u", log=log, later=lambda seconds, call: self.waiting.append((self.at + seconds, call))
        )

    def note(self, condition: ApiCondition, detail: str = "d", *, for_s: float = 0.0) -> None:
        """Things stand so, and do for so long."""
        if condition is not self.condition:
            self.condition, self.since = condition, self.at
        since = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(seconds=self.since)
        self.health_log.note_health(ApiHealth(condition=condition, since=since, detail=detail))
        self.at += for_s
        due = [call for at, call in self.waiting if at <= self.at]
        self.waiting = [(at, call) for at, call in self.waiting if at > self.at]
        for call in due:
            call()

    def told(self) -> list[tuple[str, str]]:
        lines = [json.loads(line) for line in self.stream.getvalue().splitlines()]
        return [(line["level"], line["state"]) for line in lines]


OK, DEGRADED, UNREACHABLE = ApiCondition.OK, ApiCondition.DEGRADED, ApiCondition.UNREACHABLE
MAINTENANCE = ApiCondition.MAINTENANCE
SAID_OK, SAID_DEGRADED, SAID_UNREACHABLE = ("info", "ok"), ("warning", "degraded"), ("warning", "unreachable")


def test_an_outage_is_told_at_once_and_once() -> None:
    news = News()
    for condition in (OK, UNREACHABLE, UNREACHABLE, OK, OK):
        news.note(condition, for_s=1)
    assert news.told() == [SAID_OK, SAID_UNREACHABLE, SAID_OK]


def test_the_first_that_is_heard_is_told() -> None:
    for condition, said_of_it in ((OK, SAID_OK), (UNREACHABLE, SAID_UNREACHABLE)):
        news = News()
        news.note(condition)
        assert news.told() == [said_of_it]


def test_a_hiccup_is_no_news() -> None:
    news = News()
    for condition in (OK, DEGRADED, OK, DEGRADED, OK):
        news.note(condition, for_s=ApiHealthLog.HICCUP_S - 0.1)
    news.note(OK, for_s=100)
    assert news.told() == [SAID_OK]


def test_a_trouble_that_stays_is_news() -> None:
    news = News()
    news.note(OK)
    news.note(DEGRADED, "401", for_s=ApiHealthLog.HICCUP_S / 2)
    news.note(DEGRADED, "403", for_s=ApiHealthLog.HICCUP_S)
    assert news.told() == [SAID_OK, SAID_DEGRADED]
    assert '"detail": "403"' in news.stream.getvalue()


def test_one_trouble_that_becomes_another_is_news_when_it_stays() -> None:
    news = News()
    for _ in range(100):
        news.note(UNREACHABLE, for_s=20)
        news.note(DEGRADED, for_s=20)
    assert news.told() == [SAID_UNREACHABLE]
    news.note(DEGRADED, for_s=ApiHealthLog.OTHER_TROUBLE_S)
    news.note(OK)
    assert news.told() == [SAID_UNREACHABLE, SAID_DEGRADED, SAID_OK]


@pytest.mark.parametrize("trouble", [DEGRADED, UNREACHABLE])
def test_an_api_that_comes_and_goes_for_an_hour(trouble: ApiCondition) -> None:
    news = News()
    for _ in range(120):
        news.note(OK, for_s=20)
        news.note(trouble, for_s=10)
    assert 2 < len(news.told()) < 10
    assert news.told()[-1][0] == "warning"
    news.note(OK, for_s=ApiHealthLog.CALM_S[-1] + 1)
    assert news.told()[-1] == SAID_OK


def test_an_api_that_was_steady_for_long_is_believed_at_once() -> None:
    news = News()
    for _ in range(50):
        news.note(OK, for_s=3600)
        news.note(UNREACHABLE, for_s=60)
        news.note(OK)
        assert news.told()[-1] == SAID_OK
    assert len(news.told()) == 101


def test_maintenance_is_told_once_when_it_begins_and_once_when_it_ends() -> None:
    news = News()
    for condition in (OK, MAINTENANCE, MAINTENANCE, MAINTENANCE, OK, OK):
        news.note(condition, for_s=1)
    assert news.told() == [SAID_OK, ("info", "maintenance"), SAID_OK]


def test_a_failure_that_becomes_maintenance_is_told() -> None:
    news = News()
    news.note(OK)
    news.note(UNREACHABLE, for_s=1)
    news.note(MAINTENANCE, for_s=1)
    assert news.told() == [SAID_OK, SAID_UNREACHABLE, ("info", "maintenance")]
