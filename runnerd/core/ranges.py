"""Writes lists of whole numbers for people. Pure."""

from __future__ import annotations

from collections.abc import Iterable


def format_ranges(numbers: Iterable[int]) -> str:
    """Format ascending whole numbers: 1-3, 5 and 7."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    words = [str(first) if first == last else f"{first}-{last}" for first, last in parts]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
