"""runnerctl logs: the output of a run and of its attempts, and what of it is not printed."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kits.fakes.fake_documents import ended
from tests.kits.fakes.runnerctl import runnerctl
from tests.kits.fakes.serving import Serving, serving

RUN = "aaaa1111-0000-4000-8000-000000000001"
OVER = "cccc3333-0000-4000-8000-000000000003"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Serving]:
    with serving(tmp_path) as it:
        it.call(it.host.runs.put, RUN)
        it.call(it.host.runs.put, RUN.replace("1", "2"))
        it.call(it.host.runs.put, OVER, name="finished", **ended())
        yield it


def test_logs(served: Serving) -> None:
    (served.outputs / f"{OVER}.log").write_bytes(b"hello\n\xff\n")
    assert json.loads(runnerctl(served, "logs", "finished", "--json").out) == {
        "id": OVER,
        "name": "finished",
        "output": "hello\n\ufffd\n",
        "attempts": [{"attempt": 1, "bytes": 8, "cut": False, "shown": True}],
    }
    assert runnerctl(served, "logs", "nobody").status == 4
    assert runnerctl(served, "logs", "aaaa").status == 1  # ambiguous


def test_logs_of_one_attempt_and_what_else_there_is(served: Serving) -> None:
    (served.outputs / f"{OVER}.log").write_bytes(b"first\n")
    with (served.outputs / f"{OVER}.3.log").open("wb") as third:
        third.truncate(4096)  # the hole that a cut leaves
        third.seek(0, 2)
        third.write(b"third\n")
    served.host.runs.attempt = 3
    served.call(served.host.runs.put, OVER, attempt=3)
    result = runnerctl(served, "logs", "finished")
    assert (result.status, result.out) == (0, "third\n")
    assert result.err == (
        "the oldest part of the output of attempt 3 is missing: it was removed for run.output_max\n"
        f"this is attempt 3; there is also output of attempt 1: runnerctl logs {OVER[:8]} --attempt N\n"
    )
    result = runnerctl(served, "logs", "finished", "--attempt", "1")
    assert (result.status, result.out) == (0, "first\n")
    assert "this is attempt 1; there is also output of attempt 3" in result.err
    result = runnerctl(served, "logs", "finished", "--attempt=2", "-f")
    assert (result.status, result.out) == (4, "")
    missing = (
        f"runnerctl: there is no output of attempt 2 of run {OVER} on this host; there is output of attempt 1 and 3"
    )
    assert result.err.splitlines()[-1] == missing
    assert runnerctl(served, "logs", "finished", "--attempt", "0").status == 2
