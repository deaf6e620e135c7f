"""Names places, types and values of JSON in messages. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping

from runnerd.core.place import Json

_SHOWN = 60  # characters

# By their names in JSON schema.
TYPES = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a map",
    "null": "null",
}


def dotted(path: Iterable[str | int]) -> str:
    """Join the steps of a path: `schedules[1].cron`."""
    words = ""
    for part in path:
        words += f"[{part}]" if isinstance(part, int) else f".{part}" if words else part
    return words


def name_kind(value: Json) -> str:
    """Name the kind of a value, without showing the value."""
    if isinstance(value, bool) or value is None:
        return "null" if value is None else "true or false"
    if isinstance(value, str):
        return "text"
    return "a map" if isinstance(value, Mapping) else "a list" if isinstance(value, list) else "a number"


def show_value(value: Json, quote: Callable[[str], str] = repr) -> str:
    """Show a value in a message: shortened, and of a list or a map only the kind."""
    if isinstance(value, str):
        return shorten(quote(value))
    if value is None or isinstance(value, Mapping | list):
        return name_kind(value)
    if isinstance(value, float) and not math.isfinite(value):
        return {math.inf: ".inf", -math.inf: "-.inf"}.get(value, ".nan")  # as YAML writes them; JSON has none
    return shorten(json.dumps(value))


def quote_json(text: str) -> str:
    """Write a text as JSON does, for `show` and schema_words."""
    return json.dumps(text, ensure_ascii=False)


def shorten(text: str) -> str:
    """Bring a text onto one line, and cut it."""
    text = re.sub(r"\s+", " ", text)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
