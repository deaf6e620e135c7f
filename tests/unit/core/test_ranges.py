"""ranges.py: numbers in messages."""

import pytest

from runnerd.core.ranges import format_ranges


@pytest.mark.parametrize(
    ("numbers", "words"),
    [((), ""), ((2,), "2"), ((1, 2), "1-2"), ((1, 3), "1 and 3"), ((1, 2, 3, 5, 7, 8), "1-3, 5 and 7-8")],
)
def test_ranges(numbers: tuple[int, ...], words: str) -> None:
    assert format_ranges(numbers) == words
