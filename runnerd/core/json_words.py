"""What places and types of JSON are called in messages. Pure."""

from __future__ import annotations

from collections.abc import Iterable

# By the name JSON schema has for each.
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
    """`schedules[1].cron`."""
    words = ""
    for part in path:
        words += f"[{part}]" if isinstance(part, int) else f".{part}" if words else part
    return words
