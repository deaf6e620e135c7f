"""Checks cron expressions as Prefect's servers do, and says which field is wrong and what it may hold.

Both majors parse with croniter: five fields, then optionally seconds and years; names, L, #, ranges that wrap around.
An expression is good when a server of either major takes it: `15W` is for 2.20 alone. Both accept one whose day is in
none of its months, and then fail whenever they look for its next date, so it is refused here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from runnerd.config.sections import Misplaced
from runnerd.core.schema_words import suggest_near_match

ALIASES = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()  # the first one means `low`

    def says(self) -> str:
        """Say which values the field has."""
        words = f"go from {self.low} to {self.high}"
        if self.names:
            words += f" or from {self.names[0]} to {self.names[-1]}"
        return f"{self.name} {words}"


DAYS_OF_MONTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_DAY, _MONTH, _WEEKDAY, _YEAR = 2, 3, 4, 6
_FIELDS = (
    _Field("minutes", 0, 59),
    _Field("hours", 0, 23),
    _Field("days of the month", 1, 31),
    _Field("months", 1, 12, _MONTHS),
    _Field("days of the week", 0, 6, _WEEKDAYS),
    _Field("seconds", 0, 59),
    _Field("years", 1970, 2099),
)
_ZERO_OR_SEVEN = {_DAY: (0, 1), _MONTH: (0, 1), _WEEKDAY: (7, 0)}
_NOT_SO = {5: (_DAY, _MONTH), 6: (_MONTH, _WEEKDAY), 7: (_DAY, _MONTH, _WEEKDAY)}  # number of fields -> no such aliases

_NUMBER = re.compile(r"\d+")
_RANGE = re.compile(r"([^-]+)-([^-/]+)(?:/(\d+))?")
_FROM_ON = re.compile(r"(.+)/(.+)")
_NEAREST_WEEKDAY = re.compile(r"(?:(\d+)w|w(\d+))")
_RANDOM = re.compile(r"[hr](?:\(\d+-\d+\))?(?:/\d+)?")
_NTH = re.compile(
    r"(?:((?:{days})(?:-(?:{days}))?|(?:{months})(?:-(?:{months}))?|\w+)#|l)(\d+)".format(
        days="|".join(_WEEKDAYS), months="|".join(_MONTHS)
    )
)


def check_cron(text: str) -> None:
    """Check a cron expression. Raises Misplaced with the offset of what is wrong in `text`."""
    if text.strip().startswith("@"):
        if text.strip().lower() not in ALIASES:
            raise Misplaced(f"there is no {text.strip()!r}{suggest_near_match(text.strip(), ALIASES)}", 0)
        return
    fields = list(re.finditer(r"\S+", text))
    if len(fields) not in _NOT_SO:
        count = f"{len(fields)} field{'s' * (len(fields) != 1)}"
        raise Misplaced(f"{text!r} has {count}; write five: minute hour day month weekday", 0)
    parts = [_Check(index, field[0], field.start(), len(fields)).parts() for index, field in enumerate(fields)]
    _check_mixture(parts[_WEEKDAY], fields[_WEEKDAY])
    _check_days(parts, fields)


def last_year(text: str) -> int | None:
    """Return the last year of a good expression that has a field of years; None where it has no end."""
    fields = list(re.finditer(r"\S+", text))
    if len(fields) <= _YEAR:
        return None
    years = _values(_Check(_YEAR, fields[_YEAR][0], fields[_YEAR].start(), len(fields)).parts())
    return max((year for year in years if isinstance(year, int)), default=None) if _is_listed(years) else None


@dataclass(frozen=True, slots=True)
class _Part:
    """The values of one part of a field; with `nth`, only the n-th (or `l`ast) of these weekdays in a month."""

    values: frozenset[int | str]
    nth: bool


def _values(parts: Iterable[_Part]) -> frozenset[int | str]:
    return frozenset[int | str]().union(*(part.values for part in parts))


def _is_listed(values: frozenset[int | str]) -> bool:
    """Return whether these are all numbers, so none is `*`, `l` or the nearest weekday."""
    return not any(isinstance(value, str) for value in values)


def _check_days(parts: Sequence[Sequence[_Part]], fields: Sequence[re.Match[str]]) -> None:
    """Refuse days that none of the months has; the servers find no date then, whatever the weekdays are."""
    days, months = _values(parts[_DAY]), _values(parts[_MONTH])
    if not _is_listed(days) or not _is_listed(months):
        return
    longest = max(DAYS_OF_MONTHS[int(month) - 1] for month in months)
    if min(map(int, days)) > longest:
        field = fields[_DAY]
        message = f"{field[0]!r} is never due: no month of {fields[_MONTH][0]!r} has more than {longest} days"
        raise Misplaced(message, field.start())


def _check_mixture(parts: Sequence[_Part], field: re.Match[str]) -> None:
    nth = _values(part for part in parts if part.nth)
    plain = _values(part for part in parts if not part.nth)
    if nth and plain - nth - {"*"} and len(nth | plain) != 7:
        message = f"{field[0]!r} mixes whole weekdays with the n-th of a month; write a schedule for each"
        raise Misplaced(message, field.start())


class _Check:
    """The check of one field: `offset` is its place in the expression of `count` fields."""

    def __init__(self, index: int, text: str, offset: int, count: int) -> None:
        self._index = index
        self._field = _FIELDS[index]
        self._text = text
        self._offset = offset
        self._count = count

    def parts(self) -> list[_Part]:
        """Check and return all parts, which commas separate."""
        text = self._text.lower()
        if _RANDOM.fullmatch(text):
            self._refuse("is a random or hashed value, which Prefect does not support; write the value", self._offset)
        if "?" in text:
            if text != "?" or self._index not in (_DAY, _WEEKDAY):
                self._refuse("is not allowed: '?' stands alone, for a day of the month or of the week", self._offset)
            text = "*"
        parts = text.split(",")
        found: list[_Part] = []
        for number, part in enumerate(parts):
            at = self._offset + sum(len(one) + 1 for one in parts[:number])
            values, nth = self._part(part, at, alone=len(parts) == 1)
            found.append(_Part(frozenset(values), nth))
        return found

    def _part(self, part: str, at: int, *, alone: bool) -> tuple[set[int | str], bool]:
        nth = False
        if self._index == _WEEKDAY and (special := _NTH.fullmatch(part)):
            days, number = special.groups()
            if days is not None and not 1 <= int(number) <= 5:
                self._refuse("is not allowed: a month has the first to the fifth of a weekday", at)
            part, nth = days or number, True
        if self._index == _DAY and (nearest := _NEAREST_WEEKDAY.fullmatch(part)):
            if not 1 <= int(nearest[1] or nearest[2]) <= 31 or not alone:
                self._refuse("is not allowed: W goes with one day from 1 to 31, and stands alone", at)
            return {"w"}, False
        span = self._as_range(part)
        return (self._range(span, at), nth) if span else ({self._single(part, at)}, nth)

    def _as_range(self, part: str) -> re.Match[str] | None:
        low, high = self._field.low, self._field.high
        text = f"{low}-{high}{part[1:]}" if part.startswith("*/") and len(part) > 2 else part
        from_on = _FROM_ON.fullmatch(part)
        return _RANGE.fullmatch(text) or (_RANGE.fullmatch(f"{from_on[1]}-{high}/{from_on[2]}") if from_on else None)

    def _range(self, span: re.Match[str], at: int) -> set[int | str]:
        first, last, every = span.groups()
        if self._index == _DAY and last == "l":
            last = "31"
        low, high, step = self._number(first, at), self._number(last, at), int(every or 1)
        if step == 0:
            self._refuse("has the step 0; write 1 or more", at)
        if max(low, high) > self._field.high or (low != high and low < self._field.low):
            self._out_of_range(at)
        bottom, top = self._field.low, self._field.high
        if low == high:
            return set(range(bottom, top + 1, step))
        if low < high:
            return set(range(low, high + 1, step))
        up = list(range(low, top + 1, step))
        skipped = top - up[-1]
        wraps = up[-1] - bottom + step > top - bottom + 1 and skipped < step
        return {*up, *range(bottom + (step - skipped if wraps else 0), high + 1, step)}

    def _single(self, part: str, at: int) -> int | str:
        if part == "*" or (part == "l" and self._index == _DAY):
            return part
        number = self._number(part, at)
        if not self._field.low <= number <= self._field.high:
            self._out_of_range(at)
        return number

    def _number(self, word: str, at: int) -> int:
        if _NUMBER.fullmatch(word):
            number = int(word)
        elif word in self._field.names:
            number = self._field.names.index(word) + self._field.low
        else:
            self._refuse(f"is not allowed here: {self._field.says()}, and may be joined by , - /", at)
        alias, meant = _ZERO_OR_SEVEN.get(self._index, (-1, -1))
        return meant if number == alias and self._index not in _NOT_SO[self._count] else number

    def _out_of_range(self, at: int) -> NoReturn:
        self._refuse(f"is out of range: {self._field.says()}", at)

    def _refuse(self, why: str, at: int) -> NoReturn:
        """Refuse the part that begins at `at`."""
        part = self._text[at - self._offset :].partition(",")[0]
        raise Misplaced(f"{part!r} {why}", at)
