"""Errors of validation (422) in words: of a value that fits none of several forms, only the form that was meant.

A schedule is one of three kinds to the server, and a wrong cron expression is refused as an interval and as a rule too:
those reasons hide the one that helps.
"""

from __future__ import annotations

from collections.abc import Iterable

from runnerd.core.json_words import dotted
from runnerd.core.place import Json, printable

_MOST = 3
_OF_OTHER_FORMS = ("missing", "extra_forbidden", "value_error.missing", "value_error.extra")
Loc = tuple[str | int, ...]


def validation_words(detail: list[Json], *, longest: int) -> str:
    """Return the telling errors as `key: reason`, never with the input, which may be anything."""
    items = [item for item in detail if isinstance(item, dict)]
    told = dict.fromkeys(_words(item) for item in _of_meant_forms(items))
    words = [one for one in told if not any(other != one and other.startswith(one) for other in told)]
    more = f"; and {len(words) - _MOST} more" if len(words) > _MOST else ""
    return shorten("; ".join(words[:_MOST]), longest) + more


def shorten(text: str, longest: int) -> str:
    """Put a text on one line of at most `longest` characters, with what a terminal might obey escaped."""
    line = printable(" ".join(text[: 4 * longest].split()))
    return line if len(line) <= longest else line[: longest - 3] + "..."


def _of_meant_forms(items: list[Json]) -> Iterable[Json]:
    """Leave out the errors of forms that were not meant: a form lacks a key, or has one too many.

    3.x names the form in the location of an error; in 2.20 missing and extra keys of a schedule are left out.
    """
    wrong_forms = {_form(_loc(item)) for item in items if item.get("type") in _OF_OTHER_FORMS} - {None}
    meant = [item for item in items if item.get("type") not in _OF_OTHER_FORMS and _form(_loc(item)) not in wrong_forms]
    told_of = {where for item in meant if (where := _where(_loc(item))) is not None}
    return [item for item in items if item in meant or _where(_loc(item)) not in told_of]


def _loc(item: Json) -> Loc:
    loc = item.get("loc")
    return tuple(part for part in loc if isinstance(part, str | int)) if isinstance(loc, list) else ()


def _is_form(part: str | int) -> bool:
    return isinstance(part, str) and (part.endswith("Schedule") or "(" in part)


def _form(loc: Loc) -> Loc | None:
    """Return the location of the form that the error is about; None outside of any."""
    index = next((index for index, part in enumerate(loc) if _is_form(part)), None)
    return loc[: index + 1] if index is not None else None


def _where(loc: Loc) -> Loc | None:
    """Return the location of the value whose forms were tried; None for a value of one form."""
    form = _form(loc)
    if form is not None:
        return form[:-1]
    return loc[:-1] if loc[-2:-1] == ("schedule",) else None


def _path(loc: Loc) -> str:
    """Write the location as the path in a drop-in: there a schedule's rule is not in a map of its own."""
    parts = [part for part in loc if not _is_form(part)]
    if parts[:1] == ["body"]:
        parts = parts[1:]
    return dotted([p for i, p in enumerate(parts) if not (p == "schedule" and i and isinstance(parts[i - 1], int))])


def _words(item: Json) -> str:
    path = _path(_loc(item))
    reason = " ".join(str(item.get("msg", "invalid")).split()).removeprefix("Value error, ")
    return f"{path}: {reason}" if path else reason
