"""Finds `{{ name }}` in the texts of commands and notices, and replaces it. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

PLACEHOLDER = re.compile(r"\{\{\s*([A-Za-z_][\w.\-]*)\s*\}\}", re.ASCII)


def list_names(text: str) -> Iterator[tuple[str, int]]:
    """List the names of the placeholders in `text`, each with its offset."""
    for found in PLACEHOLDER.finditer(text):
        yield found[1], found.start()


def replace_placeholders(text: str, value_of: Callable[[str], str | None]) -> str:
    """Replace each placeholder once by its value; one for which `value_of` returns None stays."""

    def value(found: re.Match[str]) -> str:
        its = value_of(found[1])
        return found[0] if its is None else its

    return PLACEHOLDER.sub(value, text)
