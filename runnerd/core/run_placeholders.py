"""Fills `{{ run.name }}` and the like in arguments and texts with the fields of a run's document. Pure.

Names and words of a run come from the API and from flows: a value is one line, without control characters, and short.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping

from runnerd.core.names import UNFIT
from runnerd.core.place import Json
from runnerd.core.placeholders import replace_placeholders

FIELDS = (
    *("id", "name", "deployment", "flow", "attempt", "pool", "queue", "user", "event", "host", "words"),
    *("api_state", "api_state_name", "api_state_message", "created_at", "due_at", "started_at", "ended_at"),
)
_ANYTHING = re.compile(r"\{\{\s*([^{}]*?)\s*\}\}", re.ASCII)  # what may be meant as a placeholder
_VALUE_MAX = 1000  # characters
_PREFIX = "run."
DOCUMENT_MAX = 65536  # characters of the JSON of a run
_TEXT_MAX = 4000


def unknown_placeholder(text: str) -> str | None:
    """Return the first placeholder of `text` that is no field of a run."""
    names = _ANYTHING.findall(text)
    return next((name for name in names if name not in {_PREFIX + field for field in FIELDS}), None)


def has_placeholder(text: str) -> bool:
    """Whether there is any placeholder in `text`."""
    return _ANYTHING.search(text) is not None


def fill(text: str, document: Mapping[str, Json], *, quote: Callable[[str], str] = str) -> str:
    """Replace the placeholders of `text`, each by its value after `quote`; a field without a value is empty."""

    def value_of(name: str) -> str | None:
        if not name.startswith(_PREFIX) or name.removeprefix(_PREFIX) not in FIELDS:
            return None
        return quote(one_line(document.get(name.removeprefix(_PREFIX))))

    return replace_placeholders(text, value_of)


def one_line(value: Json) -> str:
    """Write a value of a document as one line of bounded length."""
    return "" if value is None else UNFIT.sub(" ", str(value))[:_VALUE_MAX]


def quote_in_json(text: str) -> str:
    """Write a text so that it can stand between the quotes of a JSON string."""
    return json.dumps(text)[1:-1]


def document_text(document: Mapping[str, Json]) -> str:
    """Write the document of a run as JSON in one line, of at most DOCUMENT_MAX characters."""
    text = json.dumps(document)
    if len(text) <= DOCUMENT_MAX:
        return text
    # The tags and labels of a run are the only lists that may be long; whoever needs them can ask for the run.
    short = {key: value[:_TEXT_MAX] if isinstance(value, str) else value for key, value in document.items()}
    text = json.dumps({**short, "tags": [], "labels": {}, "shortened": True})
    return text if len(text) <= DOCUMENT_MAX else json.dumps({"id": document.get("id"), "shortened": True})
