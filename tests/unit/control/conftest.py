"""A control server over a FakeHost."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kits.fakes.serving import Serving, serving


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Serving]:
    with serving(tmp_path) as it:
        yield it
