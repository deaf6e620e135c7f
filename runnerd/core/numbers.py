"""Reads whole numbers from command lines and queries. Pure."""

from __future__ import annotations

from typing import Final

from runnerd.core.names import cut

HOURS_MAX: Final = 10 * 366 * 24  # of a preview
LIMIT_MAX: Final = 2**31 - 1  # the largest integer in the databases of Prefect servers
ATTEMPT_MAX: Final = 10**9 - 1
OFFSET_MAX: Final = 10**18 - 1


def parse_whole(text: str, *, least: int, most: int) -> int:
    """Parse a whole number in ASCII digits. Raises ValueError with what the number has to be."""
    # Compared by length first: int() of a long text takes quadratic time.
    if text.isascii() and text.isdigit() and len(text) <= len(str(most)) and least <= int(text) <= most:
        return int(text)
    raise ValueError(f"must be a whole number from {least} to {most}, not {cut(text)!r}")
