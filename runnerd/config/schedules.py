"""Reads schedules, and checks them as the server will: cron.py, rrule.py, time zones, dates."""

from __future__ import annotations

import zoneinfo
from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from runnerd.config.cron import check_cron, last_year
from runnerd.config.messages import find_value_place
from runnerd.config.rrule import check_rrule, find_end
from runnerd.config.sections import Flaws, Table, Values, make_duration_reader, read_as_is, read_section
from runnerd.config.yaml_nodes import Map, make_plain
from runnerd.core.json_words import dotted
from runnerd.core.place import Json
from runnerd.core.schema_words import suggest_near_match
from runnerd.core.settings import Schedule

_NO_ZONES = ("posix", "right/")  # copies of the whole database, which Prefect does not take
_KINDS = ("cron", "interval", "rrule")
_DAY = timedelta(days=1)  # in no time zone the date is still to come then
Path = tuple[str | int, ...]


class ScheduleReader:
    """Reads schedules at the time `now`; remembers the time zones it has looked up."""

    def __init__(self, *, now: datetime) -> None:
        self._now = now
        self._zones: set[str] = set()
        self._table: Table = {
            "cron": ("cron", _cron),
            "day_or": ("day_or", read_as_is),
            "interval": ("interval_s", make_duration_reader(least_s=1)),
            "anchor_date": ("anchor_date", _date),
            "rrule": ("rrule", _rrule),
            "timezone": ("timezone", self._timezone),
            "active": ("active", read_as_is),
            "slug": ("slug", read_as_is),
            "parameters": ("parameters", make_plain),
            "max_scheduled_runs": ("max_scheduled_runs", read_as_is),
        }

    def read(self, deployment: Map, flaws: Flaws) -> tuple[Schedule, ...]:
        """Read `schedules`, and the older `schedule`, of a deployment."""
        found: list[Schedule | None] = []
        if deployment.get("schedule"):
            found.append(self._one(deployment["schedule"], ("schedule",), flaws))
        nodes = deployment.get("schedules")
        if nodes and not flaws.exactly_at("schedules"):
            for index, node in enumerate(nodes):
                path: Path = ("schedules", index)
                if node is None:
                    flaws.add(path, f"{dotted(path)} is empty; remove it", find_value_place(deployment, path))
                found.append(self._one(node, path, flaws))
            _check_slugs(nodes, flaws)
        return tuple(schedule for schedule in found if schedule is not None)

    def _one(self, node: Json, path: Path, flaws: Flaws) -> Schedule | None:
        if not isinstance(node, Map):
            return None
        values = read_section(node, self._table, path, flaws)
        kinds = [kind for kind in _KINDS if node.get(kind) is not None]
        if len(kinds) != 1:
            what = " and ".join(kinds) or "none of them"
            flaws.add(path, f"a schedule needs exactly one of cron, interval and rrule, not {what}", node.place())
        for key in ("anchor_date", "day_or"):
            goes_with = "interval" if key == "anchor_date" else "cron"
            if node.get(key) is not None and goes_with not in kinds:
                flaws.add((*path, key), f"{dotted((*path, key))} goes with {goes_with} only", node.key_place(key))
        self._warn_if_over(values, path, flaws)
        return Schedule(**values.arguments())

    def _warn_if_over(self, values: Values, path: Path, flaws: Flaws) -> None:
        """Warn of a schedule whose last date has passed: it was right once, so the deployment stays good."""
        cron, rrule = values.values.get("cron"), values.values.get("rrule")
        year, end = last_year(cron) if cron else None, find_end(rrule) if rrule else None
        is_over = (year is not None and year < (self._now - _DAY).year) or (end is not None and self._now - end > _DAY)
        if is_over:
            kind = "cron" if cron else "rrule"
            words = f"the last date was in {year}" if cron else f"the last date was {end:%Y-%m-%d}"
            flaws.warn(f"{dotted((*path, kind))} is never due any more: {words}; remove it", values.places[kind])

    def _timezone(self, value: Json) -> str:
        name = str(value)
        if name not in self._zones:
            try:
                zoneinfo.ZoneInfo("" if name.startswith(_NO_ZONES) else name)
            except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
                raise ValueError(_unknown_zone(name)) from None
            self._zones.add(name)
        return name


def _unknown_zone(name: str) -> str:
    known: Collection[str] = zoneinfo.available_timezones()
    if not known:
        return f"cannot look up {name!r}: this host has no time zone data; install tzdata"
    return f"there is no time zone {name!r}{suggest_near_match(name, known)}"


def _check_slugs(nodes: Json, flaws: Flaws) -> None:
    seen: set[str] = set()
    for index, node in enumerate(nodes):
        slug = node.get("slug") if isinstance(node, Map) else None
        if isinstance(slug, str) and slug in seen:
            path = ("schedules", index, "slug")
            message = f"{dotted(path)}: an earlier schedule has the slug {slug!r}; change one"
            flaws.add(path, message, node.value_place("slug"))
        elif isinstance(slug, str):
            seen.add(slug)


def _cron(value: Json) -> str:
    text = str(value)
    check_cron(text)
    return text.strip()


def _rrule(value: Json) -> str:
    check_rrule(str(value))
    return str(value)


def _date(value: Json) -> str:
    try:
        moment = datetime.fromisoformat(str(value).strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()
    except ValueError:
        raise ValueError(f"{value!r} is not a date; write it like 2026-01-01T00:00:00+00:00") from None
