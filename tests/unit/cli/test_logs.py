"""logs.py: what runnerctl logs says about output that it does not print."""

from __future__ import annotations

import pytest

from runnerd.cli.verbs.logs import describe_gaps
from tests.kits.fakes.fake_documents import a_run
from tests.kits.nouns import Json

RUN = "aaaa1111-0000-4000-8000-000000000001"


def its(attempt: int, *, shown: bool = False) -> Json:
    return {"attempt": attempt, "bytes": 500, "cut": False, "shown": shown}


@pytest.mark.parametrize(
    ("waiting", "words"), [(None, ""), ("No space left on device", ": it waits: No space left on device")]
)
def test_an_attempt_that_has_not_started_is_named_with_those_before(waiting: str | None, words: str) -> None:
    run = a_run(RUN, phase="starting", attempt=3, waiting=waiting)
    assert describe_gaps(run, [its(1), its(2)], asked=None) == (
        [
            f"attempt 3 has not started{words}",
            "there is output of attempt 1-2: runnerctl logs aaaa1111 --attempt 2",
        ],
        [],
    )
    assert describe_gaps(run, [its(1), its(2)], asked=3) == ([], []), "the answer to that request says what there is"
    assert describe_gaps(a_run(RUN, phase="claiming", attempt=1), [], asked=None) == ([], [])


def test_an_attempt_that_has_started_is_not_said_to_wait() -> None:
    before = ["there is output of attempt 1: runnerctl logs aaaa1111 --attempt 1"]
    removed = a_run(RUN, phase="running", attempt=2)
    assert describe_gaps(removed, [its(1)], asked=None) == (before, [])
    started_meanwhile = a_run(RUN, phase="claiming", attempt=1)
    assert describe_gaps(started_meanwhile, [its(1)], asked=None) == (before, [])
