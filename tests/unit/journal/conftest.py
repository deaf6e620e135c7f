"""A journal file with many runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from runnerd.core.machine import Phase
from tests.kits.journal import MANY, opened, running


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A closed journal of many runs, some of them under way."""
    path = tmp_path / "journal.db"
    with opened(path) as journal:
        for number in range(MANY):
            journal.save(running(f"r-{number:02}"), "started")
            if number % 3 == 0:
                journal.save(replace(running(f"r-{number:02}"), phase=Phase.DONE), "told")
    return path
