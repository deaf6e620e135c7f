"""A 422 in words: the error of the form that was meant, whole, with the path that the drop-in has."""

from __future__ import annotations

from typing import Any

import pytest

from runnerd.prefect_api.failure_words import server_words

FORMS_3 = (
    "function-after[validate_timezone(), IntervalSchedule]",
    "function-after[validate_timezone(), CronSchedule]",
    "RRuleSchedule",
)
CRON = 'Invalid cron string: "61 * * * *"'
ZONE = 'Invalid timezone: "Mars/X" (specify in IANA tzdata format, for example, America/New_York)'


def at(*loc: str | int) -> list[str | int]:
    return ["body", "schedules", 1, "schedule", *loc]


def item(loc: list[str | int], kind: str, msg: str) -> dict[str, Any]:
    return {"type": kind, "loc": loc, "msg": msg, "input": "secret"}


def of_3(*told: dict[str, Any]) -> list[dict[str, Any]]:
    """As 3.9 refuses a cron schedule: the others lack their key, and have one too many."""
    interval, _, rule = FORMS_3
    return [
        item(at(interval, "interval"), "missing", "Field required"),
        item(at(interval, "cron"), "extra_forbidden", "Extra inputs are not permitted"),
        *told,
        item(at(rule, "rrule"), "missing", "Field required"),
        item(at(rule, "timezone"), "string_pattern_mismatch", "should match Africa|" + "x" * 9999),
    ]


def of_2(*told: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        item(at("interval"), "value_error.missing", "field required"),
        item(at("cron"), "value_error.extra", "extra fields not permitted"),
        *told,
        item(at("rrule"), "value_error.missing", "field required"),
        item(at("cron"), "value_error.extra", "extra fields not permitted"),
    ]


@pytest.mark.parametrize(
    ("detail", "words"),
    [
        (of_3(item(at(FORMS_3[1], "cron"), "value_error", f"Value error, {CRON}")), f"schedules[1].cron: {CRON}"),
        (of_3(item(at(FORMS_3[1]), "value_error", f"Value error, {ZONE}")), f"schedules[1]: {ZONE}"),
        (of_2(item(at("cron"), "value_error", CRON)), f"schedules[1].cron: {CRON}"),
        (of_2(*[item(at("timezone"), "value_error", ZONE)] * 2), f"schedules[1].timezone: {ZONE}"),
        (
            [item(["body", "tags", 0], "string_type", "x"), item(["body", "flow_id"], "missing", "Field required")],
            "tags[0]: x; flow_id: Field required",
        ),
        ([item(["body", f"k{n}"], "x", "bad") for n in range(5)], "k0: bad; k1: bad; k2: bad; and 2 more"),
        ([item(["body", "parameters"], "x", "because " + "it is long " * 60)], None),
        ([{"msg": 5, "loc": [None, {}]}, 7], "5"),
    ],
)
def test_the_words_of_a_refusal(detail: Any, words: str | None) -> None:
    found = server_words({"exception_message": "Invalid request received.", "exception_detail": detail})
    assert found == (words or f"parameters: because {'it is long ' * 60}".strip())
    assert "secret" not in found
