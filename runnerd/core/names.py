"""What a name may look like that comes from a command line, a request or a configuration file. Pure.

A name is one line of text: it is compared, logged and sent on, and never has to hold more than its writer can read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

NAME_MAX = 500  # characters; no name that Prefect accepts on every database is longer
_SHOWN = 60
TEXT_MAX = 10_000  # characters of a text of several lines, such as a description

# The control characters of ASCII and of Latin-1, and halves of characters, which no encoding can write.
UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
HALF = re.compile("[\ud800-\udfff]")


def some(names: Sequence[str], *, most: int = 3) -> str:
    """Join the first names, at most so many, and count the rest: "a, b, c and 2 more"."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def describe_character(character: str) -> str:
    """Name a character that cannot be shown: `the control character U+000A`."""
    kind = "unpaired surrogate" if HALF.match(character) else "control character"
    return f"the {kind} U+{ord(character):04X}"


def describe_unfit_name(text: str) -> str | None:
    """Say why `text` cannot be a name, to follow what the name is of; None when it can."""
    found = UNFIT.search(text)
    if found is not None:
        return f"has {describe_character(found[0])}, which no name has"
    if len(text) > NAME_MAX:
        return f"has {len(text)} characters; a name has at most {NAME_MAX}"
    return None


def describe_unfit_text(text: str) -> str | None:
    """Say why `text` cannot be a text of several lines, to follow what the text is; None when it can."""
    found = HALF.search(text)
    if found is not None:
        return f"has {describe_character(found[0])}, which UTF-8 cannot encode"
    return f"has {len(text)} characters; at most {TEXT_MAX} are allowed" if len(text) > TEXT_MAX else None


def cut(text: str) -> str:
    """Cut a text that a message quotes."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
