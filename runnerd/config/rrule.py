"""Checks recurrence rules (RFC 5545) as Prefect's servers do, and says which part is wrong.

Both majors parse with dateutil, which is lenient: dates in unusual forms are left to the server. Values that can never
occur (BYMONTH=13, INTERVAL=0) are refused here, because the server would search for a date without end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial

from runnerd.config.cron import DAYS_OF_MONTHS
from runnerd.config.sections import Misplaced
from runnerd.core.schema_words import suggest_near_match

_LENGTH_MAX = 6500  # characters, as in Prefect
_FREQUENCIES = ("YEARLY", "MONTHLY", "WEEKLY", "DAILY", "HOURLY", "MINUTELY", "SECONDLY")
_DAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
# Numbers of each part: lowest, highest, and whether they may count from the end.
_NUMBERS = {
    "BYSETPOS": (1, 366, True),
    "BYMONTH": (1, 12, False),
    "BYMONTHDAY": (1, 31, True),
    "BYYEARDAY": (1, 366, True),
    "BYWEEKNO": (1, 53, True),
    "BYHOUR": (0, 23, False),
    "BYMINUTE": (0, 59, False),
    "BYSECOND": (0, 59, False),
    "BYEASTER": (0, 366, True),
}
_PARTS = ("FREQ", "INTERVAL", "COUNT", "UNTIL", "WKST", "BYDAY", "BYWEEKDAY", *_NUMBERS)
_PROPERTIES = ("RRULE", "EXRULE", "DTSTART", "EXDATE", "RDATE")
_WORDS = {"FREQ": _FREQUENCIES, "WKST": _DAYS}
_NUMBER = re.compile(r"\s*[+-]?\d+\s*")
_DAY = re.compile(r"([+-]?\d*)([A-Z]+)|([A-Z]+)\(([+-]?\d+)\)")
_DATE = re.compile(r"\d{8}(?:T\d{6}(Z?))?")
_ZONES_APART = timedelta(hours=26)  # the same time of day may be so far apart in two time zones
_VALUES = ("VALUE=DATE-TIME", "VALUE=DATE")


def check_rrule(text: str) -> None:
    """Check one rule, or several lines of rules and dates. Raises Misplaced with the offset of what is wrong."""
    if len(text) > _LENGTH_MAX:
        raise Misplaced(f"has {len(text)} characters, more than the {_LENGTH_MAX} that Prefect allows; split it", 0)
    if text.lstrip().startswith("{"):
        raise Misplaced("must be a rule such as FREQ=DAILY, not JSON; write its timezone as a key of the schedule", 0)
    lines = _read_lines(text)
    if not lines:
        raise Misplaced("is empty; write a rule such as FREQ=DAILY", 0)
    rules = [line for line in lines if line.name in ("RRULE", "EXRULE")]
    if not any(line.name in ("RRULE", "RDATE", "EXRULE", "EXDATE") for line in lines):
        raise Misplaced("has no rule; write one such as RRULE:FREQ=DAILY", 0)
    starts = [line.check_dates() for line in lines if line.name not in ("RRULE", "EXRULE")]
    has_zone = next((zone for line_name, zone in starts if line_name == "DTSTART"), None)
    begin = next((line.date() for line in lines if line.name == "DTSTART"), None)
    for rule in rules:
        rule.check_rule(has_zone)
    if (only := _only_rule(lines)) is not None:
        only.check_due(begin)


def find_end(text: str) -> datetime | None:
    """Return the UNTIL of a good text with one rule and no RDATE; None without one. A date without zone is in UTC."""
    rule = _only_rule(_read_lines(text))
    return rule.until() if rule is not None else None


def _only_rule(lines: list[_Line]) -> _Line | None:
    """Return the rule without which nothing would be due: the only RRULE, where there is no RDATE."""
    rules = [line for line in lines if line.name == "RRULE"]
    return rules[0] if len(rules) == 1 and not any(line.name == "RDATE" for line in lines) else None


def _read_lines(text: str) -> list[_Line]:
    return [_Line(match[0].upper(), match.start()) for match in re.finditer(r"\S+", text)]


class _Line:
    """One property, `NAME;PARAMETERS:VALUE`; a line without a name is a rule."""

    def __init__(self, text: str, at: int) -> None:
        before, colon, after = text.partition(":")
        self._parameters: list[str] = before.split(";")[1:] if colon else []
        self.name = before.partition(";")[0] if colon else "RRULE"
        self._at = at
        self._value = after if colon else text
        self._value_at = at + (len(before) + 1 if colon else 0)
        if self.name not in _PROPERTIES:
            hint = suggest_near_match(self.name, _PROPERTIES)
            raise Misplaced(f"there is no property {self.name!r}{hint or '; use ' + ', '.join(_PROPERTIES)}", at)
        allowed = {"RDATE": _VALUES[:1], "DTSTART": _VALUES, "EXDATE": _VALUES}.get(self.name, ())
        for parameter in self._parameters:
            has_zone = parameter.startswith("TZID=") and self.name in ("DTSTART", "EXDATE")
            if parameter not in allowed and not has_zone:
                raise Misplaced(f"{self.name} cannot have {parameter!r}; remove it", at)

    def check_dates(self) -> tuple[str, bool | None]:
        """Check the dates; return the property's name and whether they have a time zone, None where unknown."""
        known: bool | None = None
        dates = list(_split(self._value, ",", self._value_at))
        zoned = any(parameter.startswith("TZID=") for parameter in self._parameters)
        for date, at in dates:
            known = _check_date(date, at)
            if known and zoned:
                raise Misplaced(f"{date!r} has both TZID and Z; remove one", at)
        if self.name == "DTSTART" and len(dates) != 1:
            raise Misplaced(f"DTSTART is one date, not {len(dates)}", self._value_at)
        return self.name, True if zoned else known

    def date(self) -> datetime | None:
        """Return the date of a DTSTART, None for one of an unusual form; without a zone in UTC."""
        return _read_date(self._value)

    def until(self) -> datetime | None:
        """Return the UNTIL of a rule, None without one; without a zone in UTC."""
        parts = (part.partition("=") for part, _ in _split(self._value, ";", 0))
        return next((_read_date(value) for name, _, value in parts if name == "UNTIL"), None)

    def check_rule(self, start_has_zone: bool | None) -> None:
        """Check a rule. `start_has_zone`: whether DTSTART has a time zone; None without one."""
        found: dict[str, str] = {}
        for part, at in _split(self._value, ";", self._value_at):
            name, equals, value = part.partition("=")
            if not equals or "=" in value:
                raise Misplaced(f"{part!r} is not a part of a rule; write NAME=VALUE, with ';' between parts", at)
            if name not in _PARTS:
                raise Misplaced(f"there is no {name!r}{suggest_near_match(name, _PARTS)}", at)
            _check_part(name, value, at)
            found[name] = value
        if "FREQ" not in found:
            raise Misplaced("a rule needs FREQ, such as FREQ=DAILY", self._value_at)
        until = _DATE.fullmatch(found.get("UNTIL", ""))
        if until and start_has_zone is not None and start_has_zone != bool(until[1]):
            message = "UNTIL needs a Z if DTSTART has one, and none if DTSTART has none"
            raise Misplaced(message, self._value_at + self._value.index("UNTIL="))

    def check_due(self, start: datetime | None) -> None:
        """Refuse a good rule by which nothing is ever due. `start` is DTSTART, None without one."""
        parts = (part.partition("=") for part, _ in _split(self._value, ";", 0))
        self._check_days({name: value for name, _, value in parts})
        end = self.until()
        if start is not None and end is not None and start - end > _ZONES_APART:
            message = "the rule is never due, because UNTIL is before DTSTART"
            raise Misplaced(message, self._value_at + self._value.index("UNTIL="))

    def _check_days(self, found: Mapping[str, str]) -> None:
        """Refuse days that none of the months has: the server would search a lifetime for the first date."""
        if "BYMONTH" not in found or "BYMONTHDAY" not in found:
            return
        days = [abs(int(day)) for day in found["BYMONTHDAY"].split(",")]
        longest = max(DAYS_OF_MONTHS[int(month) - 1] for month in found["BYMONTH"].split(","))
        if min(days) > longest:
            message = f"BYMONTHDAY={found['BYMONTHDAY']} is never due: no month of BYMONTH has more than {longest} days"
            raise Misplaced(message, self._value_at + self._value.index("BYMONTHDAY="))


def _split(text: str, separator: str, at: int) -> Iterator[tuple[str, int]]:
    for part in text.split(separator):
        yield part, at
        at += len(part) + 1


def _check_part(name: str, value: str, at: int) -> None:
    inside = at + len(name) + 1
    if name in _WORDS and value not in _WORDS[name]:
        known = _WORDS[name]
        message = f"{name} must be one of {', '.join(known)}, not {value!r}{suggest_near_match(value, known)}"
        raise Misplaced(message, inside)
    if name == "UNTIL":
        _check_date(value, inside)
    if name in ("INTERVAL", "COUNT") and not (_NUMBER.fullmatch(value) and int(value) >= 1):
        raise Misplaced(f"{name} must be a whole number of at least 1, not {value!r}", inside)
    check = {"BYDAY": _check_day, "BYWEEKDAY": _check_day}.get(name, partial(_check_number, name))
    if name.startswith("BY"):
        for item, item_at in _split(value, ",", inside):
            check(item, item_at)


def _check_number(name: str, number: str, at: int) -> None:
    low, high, signed = _NUMBERS[name]
    count = int(number) if _NUMBER.fullmatch(number) else high + 1
    if not low <= (abs(count) if signed else count) <= high:
        words = f"from {low} to {high}" + (f" or from -{high} to -{low}" if signed else "")
        raise Misplaced(f"{name} has whole numbers {words}, not {number!r}", at)


def _check_day(day: str, at: int) -> None:
    match = _DAY.fullmatch(day)
    name = (match[2] or match[3]) if match else None
    if match is None or name not in _DAYS or match[1] in ("+", "-"):
        raise Misplaced(f"{day!r} is not a weekday; write {', '.join(_DAYS)}, or 1MO for the first Monday", at)


def _read_date(date: str) -> datetime | None:
    """Read a date of the usual form, without a zone in UTC; None for another form. Raises ValueError for no date."""
    if not _DATE.fullmatch(date):
        return None
    return datetime.strptime(date[:15], "%Y%m%dT%H%M%S" if "T" in date else "%Y%m%d").replace(tzinfo=UTC)


def _check_date(date: str, at: int) -> bool | None:
    """Check a date of the usual form; return whether it has a time zone, None for another form."""
    match = _DATE.fullmatch(date)
    if not date:
        raise Misplaced("a date is missing; write it like 20260101T000000", at)
    if match is None:
        return None
    try:
        _read_date(date)
    except ValueError:
        raise Misplaced(f"there is no date {date!r}", at) from None
    return bool(match[1])
