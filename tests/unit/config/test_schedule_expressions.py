"""Cron expressions and recurrence rules: what is refused, why, and where in the text."""

from __future__ import annotations

from pathlib import Path

import pytest

from runnerd.config.cron import check_cron
from runnerd.config.rrule import check_rrule
from runnerd.config.sections import Misplaced
from tests.kits.config import ConfigDir


@pytest.fixture
def etc(tmp_path: Path) -> ConfigDir:
    return ConfigDir(tmp_path)


GOOD_CRONS = (
    "0 2 * * *", "*/15 9-17 * * mon-fri", "0 0 L * *", "0 0 * * L5", "0 0 * * mon#1,mon#3", "0 0 1 jan ?", "0 0 ? * *",
    "0 0 * * 7", "0 0 * * sat-sun", "0 0 * nov-feb *", "5/10 * * * *", "0 0 2 * * 30", "0 0 2 * * 30 2030", "@daily",
    "@HOURLY", "0 0 15W * *", "22-2 * * * *", "0 0 1-l * *", "0 0 29 2 *", "0 0 31 2,3 *", "0 0 L 2 *", "0 0 31,1 2 *",
    "0 0 * 2 *", "0 0 31 * *",
)  # fmt: skip

BAD_CRONS = {
    "61 * * * *": (0, "'61' is out of range: minutes go from 0 to 59"),
    "0 24 * * *": (2, "'24' is out of range: hours go from 0 to 23"),
    "0  2 0 * *": (5, "'0' is out of range: days of the month go from 1 to 31"),
    "0 2 * 1,13 *": (8, "'13' is out of range: months go from 1 to 12 or from jan to dec"),
    "0 2 * * MON,8": (12, "'8' is out of range: days of the week go from 0 to 6 or from sun to sat"),
    "0 2 * * mon#6": (8, "'mon#6' is not allowed: a month has the first to the fifth of a weekday"),
    "0 2 * * 1,tue#1": (8, "'1,tue#1' mixes whole weekdays with the n-th of a month; write a schedule for each"),
    "*/0 * * * *": (0, "'*/0' has the step 0; write 1 or more"),
    "0 2 ?-3 * *": (4, "'?-3' is not allowed: '?' stands alone, for a day of the month or of the week"),
    "H * * * *": (0, "'H' is a random or hashed value, which Prefect does not support; write the value"),
    "0 2 32W * *": (4, "'32W' is not allowed: W goes with one day from 1 to 31, and stands alone"),
    "0 2 5- * *": (
        4,
        "'5-' is not allowed here: days of the month go from 1 to 31, and may be joined by , - /",
    ),
    "0 2 * *": (0, "'0 2 * *' has 4 fields; write five: minute hour day month weekday"),
    "0 2 * * * 60": (10, "'60' is out of range: seconds go from 0 to 59"),
    "0 2 * * * 0 1969": (12, "'1969' is out of range: years go from 1970 to 2099"),
    "0 0 31 2 *": (4, "'31' is never due: no month of '2' has more than 29 days"),
    "0 0 31 apr,jun mon": (4, "'31' is never due: no month of 'apr,jun' has more than 30 days"),
    "0 0 30-31 2 * 0 2028": (4, "'30-31' is never due: no month of '2' has more than 29 days"),
    "@dayly": (0, "there is no '@dayly'; did you mean '@daily'?"),
}

GOOD_RULES = (
    "FREQ=DAILY", "RRULE:FREQ=WEEKLY;BYDAY=MO,-1FR;INTERVAL=2", "freq=yearly;bymonth=1;bymonthday=-1",
    "DTSTART:20260101T090000Z\nRRULE:FREQ=DAILY;UNTIL=20270101T000000Z\nEXDATE:20260501T090000Z",
    "DTSTART;TZID=Europe/Berlin:20260101T090000\nRRULE:FREQ=DAILY", "RDATE:20260101,20260201", "FREQ=DAILY;COUNT=5",
    "DTSTART:2026-01-01\nFREQ=DAILY", "FREQ=MONTHLY;BYDAY=TH(+2)", "FREQ=YEARLY;BYMONTH=2,3;BYMONTHDAY=-31",
    "DTSTART:20260601T000000\nRRULE:FREQ=DAILY;UNTIL=20260101T000000\nRDATE:20270201T000000",
    "DTSTART:20260601T000000\nRRULE:FREQ=DAILY\nEXRULE:FREQ=DAILY;UNTIL=20260101T000000",
    "DTSTART:20260601T000000\nRRULE:FREQ=DAILY\nEXRULE:FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30",
    "DTSTART:20260101T120000\nFREQ=DAILY;UNTIL=20260101", "DTSTART:20260101T000000Z\nEXRULE:FREQ=DAILY\nRDATE:20260101",
)  # fmt: skip

BAD_RULES = {
    "FREQ=HOURLY;WKST=MON": (17, "WKST must be one of MO, TU, WE, TH, FR, SA, SU, not 'MON'; did you mean 'MO'?"),
    "FREQ=DAILY;BYHOURS=9": (11, "there is no 'BYHOURS'; did you mean 'BYHOUR'?"),
    "FREQ=DAILY;BYHOUR=9,24": (20, "BYHOUR has whole numbers from 0 to 23, not '24'"),
    "FREQ=MONTHLY;BYMONTHDAY=-32": (24, "BYMONTHDAY has whole numbers from 1 to 31 or from -31 to -1, not '-32'"),
    "FREQ=DAILY;INTERVAL=0": (20, "INTERVAL must be a whole number of at least 1, not '0'"),
    "BYHOUR=9": (0, "a rule needs FREQ, such as FREQ=DAILY"),
    "FREQ=WEEKLY;BYDAY=MO,XX": (
        21,
        "'XX' is not a weekday; write MO, TU, WE, TH, FR, SA, SU, or 1MO for the first Monday",
    ),
    "FREQ=DAILY;UNTIL=20261301": (17, "there is no date '20261301'"),
    "RRULES:FREQ=DAILY": (0, "there is no property 'RRULES'; did you mean 'RRULE'?"),
    "DTSTART:20260101T000000Z\nFREQ=DAILY;UNTIL=20270101": (
        36,
        "UNTIL needs a Z if DTSTART has one, and none if DTSTART has none",
    ),
    "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30,-31": (
        21,
        "BYMONTHDAY=30,-31 is never due: no month of BYMONTH has more than 29 days",
    ),
    "DTSTART:20260601\nRRULE:FREQ=DAILY;UNTIL=20260101": (
        34,
        "the rule is never due, because UNTIL is before DTSTART",
    ),
    "DTSTART:20260101": (0, "has no rule; write one such as RRULE:FREQ=DAILY"),
    '{"rrule": "FREQ=DAILY"}': (
        0,
        "must be a rule such as FREQ=DAILY, not JSON; write its timezone as a key of the schedule",
    ),
    "FREQ=DAILY;X": (11, "'X' is not a part of a rule; write NAME=VALUE, with ';' between parts"),
    "FREQ=DAILY" + " " * 6500: (0, "has 6510 characters, more than the 6500 that Prefect allows; split it"),
}  # fmt: skip


@pytest.mark.parametrize("text", GOOD_CRONS)
def test_a_good_cron_expression(text: str) -> None:
    check_cron(text)


@pytest.mark.parametrize("text", BAD_CRONS)
def test_a_bad_cron_expression(text: str) -> None:
    with pytest.raises(Misplaced) as caught:
        check_cron(text)
    assert (caught.value.offset, str(caught.value)) == BAD_CRONS[text]


@pytest.mark.parametrize("text", GOOD_RULES)
def test_a_good_rule(text: str) -> None:
    check_rrule(text)


@pytest.mark.parametrize("text", BAD_RULES)
def test_a_bad_rule(text: str) -> None:
    with pytest.raises(Misplaced) as caught:
        check_rrule(text)
    assert (caught.value.offset, str(caught.value)) == BAD_RULES[text]


@pytest.mark.parametrize(
    ("written", "column"),
    [
        ("0 24 * * *", 17),  # plain text
        ("'0 24 * * *'", 18),
        ('"0 24 * * *"', 18),
        ('"0\\x2024 * * *"', 15),  # an escape: the offset in the file is another one
        ("|-\n          0 24 * * *", 15),
    ],
)
def test_the_column_is_that_of_the_field(etc: ConfigDir, written: str, column: int) -> None:
    etc.write("conf.d/a.yaml", f"deployments:\n- name: a\n  entrypoint: m:f\n  schedules:\n  -     cron: {written}\n")
    (problem,) = etc.load().problems
    assert problem.place is not None and (problem.place.line, problem.place.column) == (5, column)


@pytest.mark.parametrize("name", ["europe/berlin", "posix/Europe/Berlin", "right/UTC", "Europe", "posixrules"])
def test_a_time_zone_that_prefect_does_not_take(etc: ConfigDir, name: str) -> None:
    text = f"deployments: [{{name: a, entrypoint: 'm:f', schedules: [{{cron: '@daily', timezone: {name}}}]}}]\n"
    etc.write("conf.d/a.yaml", text)
    (problem,) = etc.load().problems
    assert f"there is no time zone '{name}'" in problem.message


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ("cron: 0 0 1 1 * 0 2019-2020", "cron is never due any more: the last date was in 2020; remove it"),
        ("rrule: FREQ=DAILY;UNTIL=20200601", "rrule is never due any more: the last date was 2020-06-01; remove it"),
        ("rrule: FREQ=DAILY;UNTIL=20200601T000000Z;INTERVAL=2", "2020-06-01; remove it"),
        ("cron: 0 0 1 1 * 0 2019,2099", None),
        ("cron: 0 0 1 1 * 0 *", None),
        ("cron: '@daily'", None),
        ("rrule: FREQ=DAILY;UNTIL=20990601", None),
        ("rrule: FREQ=DAILY;COUNT=2", None),
        ("rrule: RDATE:20990101 FREQ=DAILY;UNTIL=20200601", None),
        ("rrule: RRULE:FREQ=DAILY;UNTIL=20200601 RRULE:FREQ=DAILY", None),
        ("rrule: DTSTART:20200101 FREQ=DAILY EXRULE:FREQ=DAILY;UNTIL=20200601", None),
    ],
)
def test_a_schedule_that_is_over_is_a_warning(etc: ConfigDir, schedule: str, words: str | None) -> None:
    """It was right once, and its deployment runs on request."""
    text = f"deployments:\n- name: a\n  entrypoint: flows/etl.py:f\n  schedules:\n  - {schedule}\n"
    etc.write("conf.d/a.yaml", text)
    config = etc.load()
    assert [config.problems, len(config.deployments)] == [(), 1]
    kind = schedule.partition(":")[0]
    if words is None:
        assert config.warnings == ()
        return
    (warning,) = etc.words(config.warnings)
    assert warning.startswith(f"conf.d/a.yaml:5:{len(kind) + 7}: schedules[0].{kind} is never due any more: ")
    assert warning.endswith(words)


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ("|\n          0 2 * * *", None),
        (">\n          0 2\n          * * *", None),
        ("|\n          0 2 * * *\n          0 3 * * *", "must be one line without control characters"),
        ("|\n          0 24 * * *", "'24' is out of range: hours go from 0 to 23"),
    ],
)
def test_a_block_of_text_is_an_expression_if_it_has_one_line(etc: ConfigDir, block: str, words: str | None) -> None:
    text = f"deployments:\n- name: a\n  entrypoint: flows/etl.py:f\n  schedules:\n  - cron: {block}\n"
    if words is None:
        assert [schedule.cron for schedule in etc.one(text).schedules] == ["0 2 * * *"]
        return
    etc.write("conf.d/a.yaml", text)
    (problem,) = etc.words(etc.load().problems)
    assert problem.startswith("conf.d/a.yaml:5:11: schedules[0].cron")
    assert words in problem
