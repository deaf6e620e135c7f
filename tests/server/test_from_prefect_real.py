"""The names that tests/unit/test_from_prefect.py holds docs/from-prefect.md to are those of the installed Prefects."""

from __future__ import annotations

import re

import pytest

from tests.kits.checkout import ROOT
from tests.kits.prefect_names import MAJORS, installed, recorded

pytestmark = pytest.mark.server


@pytest.mark.parametrize("major", MAJORS)
def test_the_recorded_names_are_those_of_the_packages(major: int) -> None:
    """Otherwise record them with `python -m tests.kits.prefect_names`, and correct the document."""
    lock = (ROOT / "tests" / "envs" / f"prefect{major}.txt").read_text()
    (locked,) = re.findall(r"^prefect==(\S+)", lock, re.M)
    found = installed(major)
    assert found.version == locked
    assert found == recorded()[major]
