"""A bounded part of tests/fuzz/fuzz_api_answers.py: a few hundred broken answers, the same ones each time."""

from __future__ import annotations

import pytest

from tests.fuzz.fuzz_api_answers import fuzzed, try_valid
from tests.kits.api_calls import CALLS


@pytest.mark.parametrize("name", CALLS)
def test_the_answers_that_are_broken_are_valid_before(name: str) -> None:
    try_valid(name)


@pytest.mark.parametrize("number", range(3))
def test_broken_answers(number: int) -> None:
    fuzzed(examples=60, number=number)
