"""Decides which schedules of a deployment an update creates, changes and deletes.

Pure. Invariants: a schedule that was made in Prefect stays; what the files do not state of a schedule stays as it is
in Prefect, and what they no longer state returns to its default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from runnerd.core.place import Json

# Besides the rule; of 2.20, then of 3.x. Files state no `catchup` and no `max_active_runs`.
_KEYS = ("active", "max_scheduled_runs", "max_active_runs", "catchup", "parameters", "slug")
_DEFAULTS: Mapping[str, Json] = {"active": True, "max_scheduled_runs": None, "parameters": {}, "slug": None}
_OF_NEWER_3 = frozenset({"parameters", "slug"})  # older servers refuse these keys


@dataclass(frozen=True, slots=True)
class SentSchedule:
    """A schedule as this host sent it last: its id then, None when that was not recorded, and its body."""

    id: str | None
    body: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class ScheduleChanges:
    """`whole`: each wanted schedule as it has to be; `ids`: those in Prefect already; `others`: not of this host."""

    whole: tuple[Json, ...]
    ids: tuple[str | None, ...]
    update: frozenset[int]  # positions in `whole`
    replace: frozenset[int]  # positions of those that only a new schedule can make so
    delete: tuple[str, ...]
    others: tuple[Json, ...]


def plan_schedules(wanted: Sequence[Json], stored: Sequence[Json], sent: Sequence[SentSchedule]) -> ScheduleChanges:
    """Compare the `wanted` bodies with the schedules `stored` in Prefect, of which this host `sent` some."""
    own = _own(stored, sent)
    pairs = _pair(wanted, stored, sent, own)
    whole, update, replace = [], set(), set()
    for position, body in enumerate(wanted):
        now = stored[pairs[position]] if position in pairs else None
        before = sent[own[pairs[position]]].body if position in pairs and pairs[position] in own else {}
        whole.append(_whole(body, now, before))
        if now is not None and not _is_as(whole[-1], now):
            update.add(position)
            if any(value is None and now.get(key) is not None for key, value in whole[-1].items()):
                replace.add(position)  # null in a change of a schedule changes nothing
    paired = set(pairs.values())
    return ScheduleChanges(
        whole=tuple(whole),
        ids=tuple(stored[pairs[at]]["id"] if at in pairs else None for at in range(len(wanted))),
        update=frozenset(update - replace),
        replace=frozenset(replace),
        delete=tuple(each["id"] for at, each in enumerate(stored) if at in own and at not in paired),
        others=tuple(_body_of(each) for at, each in enumerate(stored) if at not in own and at not in paired),
    )


def _own(stored: Sequence[Json], sent: Sequence[SentSchedule]) -> dict[int, int]:
    """Return the positions in `stored` that this host has sent, with their positions in `sent`.

    A recorded id decides. Where it is gone, because another client has sent all schedules anew, an equal rule does.
    """
    at_id = {each["id"]: at for at, each in enumerate(stored)}
    own = {at_id[one.id]: at for at, one in enumerate(sent) if one.id in at_id}
    for position, one in enumerate(sent):
        if one.id not in at_id:
            found = (at for at, each in enumerate(stored) if at not in own and _same_schedule(one.body, each))
            own |= dict.fromkeys(list(found)[:1], position)
    return own


def _pair(
    wanted: Sequence[Json], stored: Sequence[Json], sent: Sequence[SentSchedule], own: Mapping[int, int]
) -> dict[int, int]:
    """Return for each wanted schedule, by position, the position of the stored one that it is.

    One that is not this host's is taken where it is equal: a request whose answer was lost must not make a second one.
    """
    pairs: dict[int, int] = {}

    def pair(is_same: Callable[[int, int], bool]) -> None:
        for position in range(len(wanted)):
            taken = set(pairs.values())
            found = (at for at in range(len(stored)) if at not in taken and is_same(position, at))
            if position not in pairs and (match := next(found, None)) is not None:
                pairs[position] = match

    pair(lambda one, at: wanted[one].get("slug") is not None and wanted[one]["slug"] == stored[at].get("slug"))
    pair(lambda one, at: own.get(at) == one and _same_schedule(wanted[one], stored[at]))
    pair(lambda one, at: at in own and _same_schedule(wanted[one], stored[at]))
    pair(lambda one, at: at not in own and _same_schedule(wanted[one], stored[at], active=True))
    pair(lambda one, at: at not in own and _same_schedule(wanted[one], stored[at]))
    pair(lambda one, at: own.get(at) == one and _slug(wanted[one]) == _slug(stored[at]))
    return pairs


def _whole(body: Json, now: Json | None, before: Mapping[str, Json]) -> Json:
    """Return the body with a value for each key: the stated one, else Prefect's, unless the files stated one before."""
    whole = {"schedule": body["schedule"]}
    for key, default in _DEFAULTS.items():
        if key not in body:
            continue
        value = body[key]
        if value is None and key in _OF_NEWER_3 and key not in (now or {}):
            continue
        if value is None:
            stated_before = before.get(key) not in (None, default)
            value = default if now is None or stated_before else now.get(key, default)
        whole[key] = value
    return whole


def lost_keys(body: Json, stored: Json) -> bool:
    """Whether a stored schedule lacks a value that its body has."""
    return any(value is not None and value != stored.get(key) for key, value in body.items() if key != "schedule")


def _is_as(whole: Json, now: Json) -> bool:
    return _same_rule(whole["schedule"], now["schedule"]) and all(
        value == now.get(key, _DEFAULTS[key]) for key, value in whole.items() if key != "schedule"
    )


def _body_of(stored: Json) -> Json:
    """Return the body that makes a stored schedule again."""
    return {"schedule": stored["schedule"], **{key: stored[key] for key in _KEYS if stored.get(key) is not None}}


def _same_schedule(body: Mapping[str, Json], stored: Json, *, active: bool = False) -> bool:
    """Whether both create the same runs, and have equal slugs where both have one; with `active` also that."""
    if active and body.get("active", True) is not stored.get("active"):
        return False
    slugs = {_slug(body), _slug(stored)} - {None}
    parameters = body.get("parameters")
    same_parameters = parameters is None or parameters == (stored.get("parameters") or {})
    return len(slugs) < 2 and same_parameters and _same_rule(body["schedule"], stored["schedule"])


def _slug(body: Mapping[str, Json]) -> Json:
    return body.get("slug")


def _same_rule(one: Json, other: Json) -> bool:
    return bool(_normal(one) == _normal(other))


def _normal(rule: Json) -> Json:
    """Return the rule without what servers add: the default time zone, the spelling of a date, a DTSTART line."""
    normal = {**rule, "timezone": rule.get("timezone") or "UTC"}
    if "interval" in normal:
        normal["interval"] = float(normal["interval"])
        normal["anchor_date"] = _moment(normal.get("anchor_date"))
    if "cron" in normal:
        normal["day_or"] = normal.get("day_or", True)
    if "rrule" in normal:
        lines = [line.removeprefix("RRULE:") for line in str(normal["rrule"]).split()]
        normal["rrule"] = [line for line in lines if not line.startswith("DTSTART")]
    return normal


def _moment(text: Json) -> Json:
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return text
