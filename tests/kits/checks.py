"""What tests of the doctor's checks compare."""

from __future__ import annotations

from runnerd.doctor.checks import Check
from runnerd.doctor.subject import Source
from tests.kits.nouns import Json, a_deployment


def state_and_words(check: Check, state: str, *words: str) -> None:
    """Assert the check's state and words, and that it has a remedy unless it is ok."""
    assert check.state == state
    assert (check.remedy is None) is (state == "ok"), check
    text = f"{check.detail} | {check.remedy}"
    for each in words:
        assert each in text


def a_source(name: str, *, problem: str | None = None, **run: Json) -> Source:
    return Source(name=name, run=a_deployment(run=run).run, problem=problem)
