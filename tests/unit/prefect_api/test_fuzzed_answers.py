"""A bounded part of tests/fuzz/fuzz_api_answers.py: a few hundred broken answers, the same ones each time."""

from __future__ import annotations

import pytest

from tests.fuzz.fuzz_api_answers import broken, try_one, try_valid
from tests.kits.api_calls import CALLS
from tests.kits.fuzzing import fuzz


@pytest.mark.parametrize("name", CALLS)
def test_the_answers_that_are_broken_are_valid_before(name: str) -> None:
    try_valid(name)


def test_broken_answers() -> None:
    fuzz(broken(), lambda example: try_one(*example), examples=180, share=0.0)
