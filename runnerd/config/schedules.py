"""Reads schedules, and checks their shape; whether a cron or rrule expression is valid is checked by the server."""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Collection
from datetime import UTC, datetime, tzinfo

from runnerd.config.messages import find_value_place
from runnerd.config.sections import Flaws, Table, Values, make_duration_reader, read_as_is, read_section
from runnerd.config.yaml_nodes import Map, make_plain
from runnerd.core.json_words import dotted
from runnerd.core.place import Json
from runnerd.core.schema_words import suggest_near_match
from runnerd.core.settings import Schedule

_KINDS = ("cron", "interval", "rrule")
_CRON_FIELD = re.compile(r"[0-9A-Za-z*/,\-#?]+")
_CRON_ALIASES = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
Path = tuple[str | int, ...]


class ScheduleReader:
    """Reads schedules; remembers the time zones it has looked up."""

    def __init__(self) -> None:
        self._zones: dict[str, tzinfo] = {}
        self._table: Table = {
            "cron": ("cron", _cron),
            "day_or": ("day_or", read_as_is),
            "interval": ("interval_s", make_duration_reader(least_s=1)),
            "anchor_date": ("anchor_date", _date),
            "rrule": ("rrule", read_as_is),
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
        return Schedule(**self._anchored(values))

    def _anchored(self, values: Values) -> dict[str, Json]:
        """Put an anchor date without an offset into the schedule's own time zone, as Prefect does."""
        arguments = values.arguments()
        anchor = arguments.get("anchor_date")
        if anchor is not None:
            if anchor.tzinfo is None:
                anchor = anchor.replace(tzinfo=self._zones.get(arguments.get("timezone", ""), UTC))
            arguments["anchor_date"] = anchor.isoformat()
        return arguments

    def _timezone(self, value: Json) -> str:
        name = str(value)
        if name not in self._zones:
            try:
                self._zones[name] = zoneinfo.ZoneInfo(name)
            except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
                raise ValueError(_unknown_zone(name)) from None
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
    text = str(value).strip()
    if text.startswith("@"):
        if text not in _CRON_ALIASES:
            raise ValueError(f"there is no {text!r}{suggest_near_match(text, _CRON_ALIASES)}")
        return text
    fields = text.split()
    if len(fields) not in (5, 6):  # the sixth, seconds, is an extension that Prefect's parser reads
        raise ValueError(
            f"{text!r} has {len(fields)} field{'s' * (len(fields) != 1)}; write five: minute hour day month weekday"
        )
    for part in fields:
        if not _CRON_FIELD.fullmatch(part):
            raise ValueError(f"{part!r} in {text!r} is not a cron field; use numbers, names, and * , - /")
    return text


def _date(value: Json) -> datetime:
    try:
        return datetime.fromisoformat(str(value).strip())
    except ValueError:
        raise ValueError(f"{value!r} is not a date; write it like 2026-01-01T00:00:00+00:00") from None
