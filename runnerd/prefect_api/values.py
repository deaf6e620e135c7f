"""Reads single values of an answer: times, numbers, ids and texts. Pure.

Invariants: no function raises but for Unreadable, whatever the value is; what leaves here can be compared, added to,
converted to any time zone, stored in the journal and encoded as UTF-8.
"""

from __future__ import annotations

import math
import uuid
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from runnerd.core.json_words import name_kind, show_value
from runnerd.core.place import Json

# A year from the ends of what a datetime can hold, so that no sum, difference or time zone leads beyond them.
EARLIEST = datetime(2, 1, 1, tzinfo=UTC)
LATEST = datetime(9998, 12, 31, tzinfo=UTC)
WHOLE_MAX = 2**31 - 1  # what Prefect's own tables can hold
WAIT_MAX_S = 600.0  # a server that asks for a longer wait has made a mistake
NAME_MAX = 1000  # characters
MESSAGE_MAX = 10_000  # characters

# What Python raises where JSON is not shaped as expected; RecursionError: some hundred levels of it.
ODD = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


class Unreadable(ValueError):
    """The JSON is not what Prefect documents; the message says which part."""


# --- times ------------------------------------------------------------------------------------------------------


def read_time(value: Json) -> datetime | None:
    """Read an ISO 8601 time as UTC; None when it is absent or is none.

    Prefect sends `Z` (3.x) or `+00:00` (2.20) with any number of fractional digits. A time before EARLIEST or after
    LATEST is EARLIEST or LATEST: Prefect's servers store `0001-01-01T00:00:00+14:00`, which has no time in UTC.
    """
    if not isinstance(value, str):
        return None
    try:
        return _clamped(datetime.fromisoformat(value))
    except ValueError:
        return None


def read_due(data: dict[str, Json], key: str) -> datetime | None:
    """Read the time at which something is to happen; raises Unreadable when it is there and is no time."""
    value = data.get(key)
    moment = read_time(value)
    if moment is None and value is not None:
        raise Unreadable(f"{key} is no time: {show_value(value)}")
    return moment


def read_http_date(value: str | None) -> datetime | None:
    """Read the date of an HTTP header as UTC; None when it is absent, is none, or has no offset."""
    try:
        moment = parsedate_to_datetime(value or "")
        return _clamped(moment) if moment.tzinfo is not None else None
    except ODD:  # a year of twenty digits is an OverflowError, one of five thousand a ValueError
        return None


def _clamped(moment: datetime) -> datetime:
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    try:
        return min(max(moment.astimezone(UTC), EARLIEST), LATEST)
    except OverflowError:
        return EARLIEST if moment.year <= EARLIEST.year else LATEST


# --- numbers ----------------------------------------------------------------------------------------------------


def read_whole(value: Json) -> int | None:
    """Read a count, a limit or a priority, from 0 to WHOLE_MAX; None when it is no whole number."""
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return min(max(value, 0), WHOLE_MAX)


def read_wait_s(value: Json) -> float | None:
    """Read how many seconds to wait, from 0 to WAIT_MAX_S; None when it is no number that makes sense."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return float(max(0.0, min(value, WAIT_MAX_S)))


def read_retry_after_s(value: str | None, *, now: datetime) -> float | None:
    """Read a Retry-After header in seconds from now, at most WAIT_MAX_S; None when there is none that makes sense."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        until = read_http_date(value)
        return None if until is None else read_wait_s((until - now).total_seconds())
    return read_wait_s(seconds) if math.isfinite(seconds) and seconds >= 0 else None


# --- texts and ids ----------------------------------------------------------------------------------------------


def needed_text(data: dict[str, Json], key: str) -> str:
    """Read the text at this key; raises Unreadable when there is none, or one that no name can be as long as."""
    value = data.get(key)
    if value is None or value == "":
        raise Unreadable(f"{key} is missing")
    if not isinstance(value, str):
        raise Unreadable(f"{key} is {name_kind(value)}")
    if len(value) > NAME_MAX:
        raise Unreadable(f"{key} is longer than {NAME_MAX} characters: {show_value(value)}")
    return value


def optional_text(value: Json, *, longest: int = MESSAGE_MAX) -> str | None:
    """Read a text, its first `longest` characters; None in place of whatever else it is."""
    return value[:longest] if isinstance(value, str) else None


def needed_id(data: dict[str, Json], key: str) -> str:
    """Read the id at this key; raises Unreadable when there is none that Prefect could have given."""
    found = optional_id(data, key)
    if found is None:
        raise Unreadable(f"{key} is missing")
    return found


def optional_id(data: dict[str, Json], key: str) -> str | None:
    """Read the id at this key, None when it is absent; raises Unreadable when it is there and is none."""
    value = data.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or not is_uuid(value):
        raise Unreadable(f"{key} is no id: {show_value(value)}")
    return value.lower()


def is_uuid(text: str) -> bool:
    """Whether it can be an id at all; the majors answer one that is none differently."""
    try:
        return len(text) == 36 and str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False
